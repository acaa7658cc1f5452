//! Replays the committed corpus of every target.

use std::fs;
use std::path::{Path, PathBuf};

use roundel_core::wire::{Decoder, Message};
use roundel_core::{FromWorker, ToWorker};
use roundel_fuzz::{MAX_FRAME, TARGETS, seeds};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

#[test]
fn every_file_of_the_corpus_keeps_the_promises() {
    for (name, target) in TARGETS {
        let folder = corpus(name);
        let files = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", folder.display());
        for file in files {
            println!("{}", file.display());
            target(&fs::read(&file).unwrap());
        }
    }
}

/// A change of the format must not leave a corpus behind that reaches nothing any more.
#[test]
fn the_seeds_are_in_the_corpus_as_they_are_written_today() {
    for (target, name, bytes) in seeds::all() {
        let file = corpus(target).join(&name);
        let committed = fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert!(
            committed == bytes,
            "{} is stale: cargo run -p roundel-fuzz --example write_seeds",
            file.display()
        );
    }
}

#[test]
fn the_valid_streams_are_valid() {
    decode_all::<FromWorker>("valid-worker", &seeds::from_worker());
    decode_all::<ToWorker>("valid-primary", &seeds::to_worker());
}

fn decode_all<M: Message + std::fmt::Debug + PartialEq>(file: &str, wanted: &[M]) {
    let mut decoder = Decoder::<M>::new(MAX_FRAME);
    decoder.feed(&fs::read(corpus("native_decoder").join(file)).unwrap());
    for msg in wanted {
        let (got, _) = decoder.poll().unwrap().unwrap();
        assert_eq!(got, *msg);
    }
    assert!(!decoder.is_mid_frame());
}
