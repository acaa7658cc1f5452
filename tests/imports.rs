//! Files and folders beside each other import in one direction only.
//!
//! A file and those below it may import each other: in Rust, children see their parent's private
//! items, so what siblings share is often in their `mod.rs`. Reexports count for their origin.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The path of a module or an item, from the root of its crate.
type Names = Vec<String>;

/// A crate's files, tests apart.
#[derive(Default)]
struct Modules {
    files: BTreeSet<Names>,
    /// The paths in each file, by the names under which it imports them or as they are written.
    paths: BTreeMap<(Names, String), Names>,
}

impl Modules {
    fn read(&mut self, folder: &Path, module: &Names) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            match &*name {
                "bin" | "main" | "tests" => {}
                "lib" | "mod" => self.add(module, &fs::read_to_string(path).unwrap()),
                _ if path.is_dir() => self.read(&path, &[&module[..], &[name]].concat()),
                _ => self.add(&[&module[..], &[name]].concat(), &fs::read_to_string(path).unwrap()),
            }
        }
    }

    fn add(&mut self, module: &Names, text: &str) {
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code: String = lines.collect::<Vec<_>>().join(" ");
        self.files.insert(module.clone());
        let words = code.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
        for word in words.filter(|word| word.contains("::")) {
            self.paths.insert((module.clone(), word.to_owned()), absolute(module, word));
        }
        let trees = code.split(';').filter_map(|statement| statement.rsplit_once("use "));
        for leaf in trees.flat_map(|(_, tree)| leaves(tree)) {
            let (path, alias) = leaf.split_once(" as ").unwrap_or((&leaf, ""));
            let path = absolute(module, path);
            let name = path.last().filter(|_| alias.is_empty()).map_or(alias, String::as_str);
            self.paths.insert((module.clone(), name.to_owned()), path);
        }
    }

    /// The file that has what a path names. `follows` bounds how often an import leads on.
    fn file_of(&self, path: &[String], follows: u8) -> Names {
        let is_file = |at: &usize| self.files.contains(&path[..*at]);
        let (file, inner) = path.split_at((0..=path.len()).take_while(is_file).last().unwrap());
        let Some((name, rest)) = inner.split_first() else { return path.to_vec() };
        match self.paths.get(&(file.to_vec(), name.clone())) {
            Some(from) if follows > 0 => self.file_of(&[from, rest].concat(), follows - 1),
            _ => file.to_vec(),
        }
    }

    /// Which imports of what is beside are part of a circle, or between circles.
    fn circles(&self) -> BTreeSet<(String, String)> {
        let (mut edges, mut all) = (BTreeSet::new(), BTreeSet::new());
        for ((from, _), path) in &self.paths {
            let to = self.file_of(path, 8);
            let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            let beside = from.get(..=common).zip(to.get(..=common));
            edges.extend(beside.map(|(from, to)| (from.join("::"), to.join("::"))));
        }
        while edges != all {
            all = edges.clone();
            let (from, to): (BTreeSet<_>, BTreeSet<_>) = all.iter().cloned().unzip();
            edges.retain(|edge| to.contains(&edge.0) && from.contains(&edge.1));
        }
        edges
    }
}

fn absolute(module: &Names, path: &str) -> Names {
    let mut at = module.clone();
    for name in path.split("::").filter(|name| !name.is_empty()) {
        match name {
            "crate" => at.clear(),
            "super" => drop(at.pop()),
            "self" => {}
            name => at.push(name.to_owned()),
        }
    }
    at
}

/// The paths of `a::{b, c::{d, e}}`.
fn leaves(tree: &str) -> Vec<String> {
    let (mut found, mut prefixes) = (Vec::new(), vec![String::new()]);
    for piece in tree.split_inclusive(['{', ',', '}']) {
        let name = piece.trim_end_matches(['{', ',', '}']).trim();
        found.extend((!name.is_empty() && !name.ends_with("::")).then(|| prefixes.concat() + name));
        if piece.ends_with('{') {
            prefixes.push(name.to_owned());
        } else if piece.ends_with('}') {
            prefixes.pop();
        }
    }
    found
}

#[test]
fn no_circle_of_imports() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    for sources in ["core/src", "runtime/src", "cli/src"] {
        let mut modules = Modules::default();
        modules.read(&root.join(sources), &Names::new());
        assert!(modules.files.len() > 10, "{sources}");
        assert_eq!(modules.circles(), BTreeSet::new(), "{sources}");
    }
}
