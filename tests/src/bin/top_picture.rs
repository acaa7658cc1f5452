//! Draws the picture of `top` in the docs: four workers under load, of which one is killed on the
//! way. Prints the screen as text, and writes it as SVG to the path that it is given.
//!
//! `cargo build --release -p roundel && cargo run --release -p roundel-tests --bin top_picture --
//! docs/top.svg`

use std::fmt::Write;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use roundel_tests::programs::observe::{eventually, scratch};
use roundel_tests::programs::terminal::Terminal;

const ROWS: u16 = 16;
const COLUMNS: u16 = 118;

/// The size of a character, in pixels.
const WIDTH: usize = 8;
const HEIGHT: usize = 17;
/// What is around the screen.
const MARGIN: usize = 8;

/// Ends a process with the picture.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let target = std::env::args().nth(1).expect("the path of the picture");
    let own = std::env::current_exe().expect("its own path");
    let roundel = own.with_file_name("roundel");
    let dir = scratch("roundel-picture");
    let control = dir.join("control");
    let mut command = Command::new(&roundel);
    command.args(["demo", "-w", "4", "-b", "127.0.0.1:0", "--control"]).arg(&control);
    let mut primary = Ended(command.stderr(Stdio::piped()).spawn().expect("a primary"));
    let mut said = BufReader::new(primary.0.stderr.take().expect("its output")).lines();
    let address = said
        .find_map(|line| Some(line.ok()?.split_once("Serving on http://")?.1.to_owned()))
        .expect("an address");
    let address = address.split(' ').next().unwrap_or_default().to_owned();
    thread::spawn(move || said.for_each(drop));
    for client in 0..3 {
        let address = address.clone();
        // Each has pauses of its own, so that the load is not even.
        thread::spawn(move || {
            for number in 0_u64.. {
                if (number / 3_000 + client) % 4 == 0 {
                    thread::park_timeout(std::time::Duration::from_micros(400));
                }
                ask(&address);
            }
        });
    }
    let terminal = Terminal::new(ROWS, COLUMNS);
    let mut top = Command::new(&roundel);
    top.arg("top").arg("--control").arg(&control);
    let mut top = Ended(terminal.start(top));
    past(&terminal, 12);
    let worker = terminal.line("a worker", |line| line.starts_with("   2 "));
    let pid = worker.split_whitespace().nth(1).and_then(|pid| pid.parse().ok()).expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the worker");
    past(&terminal, 25);
    println!("{}", terminal.lines().join("\n").trim_end());
    std::fs::write(Path::new(&target), svg(terminal.screen().screen())).expect("the picture");
    terminal.press("q");
    eventually("its end", || top.0.try_wait().expect("its state"));
    let _ = std::fs::remove_dir_all(dir);
}

fn ask(address: &str) {
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Waits until the past of the first slot has so many bars.
fn past(terminal: &Terminal, seconds: usize) {
    let is_bar = |c: &char| ('▁'..='█').contains(c);
    terminal.line("the past", |line| {
        line.starts_with("   0 ") && line.chars().filter(is_bar).count() * 2 >= seconds
    });
}

/// The look of a character.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Look {
    colour: vt100::Color,
    is_bold: bool,
    is_dim: bool,
    is_inverse: bool,
    is_underlined: bool,
}

/// The screen as a picture: a rectangle and a text for each run of characters that look the same.
fn svg(screen: &vt100::Screen) -> String {
    let (rows, columns) = screen.size();
    let (rows, columns) = (rows.get(), columns.get());
    let width = usize::from(columns) * WIDTH + 2 * MARGIN;
    let height = usize::from(rows) * HEIGHT + 2 * MARGIN;
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" font-family=\"ui-monospace, DejaVu Sans Mono, \
         Menlo, Consolas, monospace\" font-size=\"13\" style=\"white-space: pre\">\n<rect width=\"{width}\" \
         height=\"{height}\" rx=\"6\" fill=\"#16181d\"/>"
    );
    for row in 0..rows {
        let mut runs: Vec<(u16, Look, String)> = Vec::new();
        for column in 0..columns {
            let Some(cell) = screen.cell(row, column) else { continue };
            let look = Look {
                colour: cell.fgcolor(),
                is_bold: cell.bold(),
                is_dim: cell.dim(),
                is_inverse: cell.inverse(),
                is_underlined: cell.underline(),
            };
            let text = if cell.has_contents() { cell.contents() } else { " " };
            match runs.last_mut() {
                Some((_, last, run)) if *last == look => run.push_str(text),
                _ => runs.push((column, look, text.to_owned())),
            }
        }
        for (column, look, text) in runs {
            draw(&mut svg, (row, column), look, &text);
        }
    }
    svg + "</svg>\n"
}

fn draw(svg: &mut String, (row, column): (u16, u16), look: Look, text: &str) {
    let kept = if look.is_inverse { text } else { text.trim_end() };
    let length = kept.chars().count() * WIDTH;
    if length == 0 {
        return;
    }
    let x = MARGIN + usize::from(column) * WIDTH;
    let y = MARGIN + usize::from(row) * HEIGHT;
    let colour = match look.colour {
        _ if look.is_inverse => "#16181d",
        vt100::Color::Idx(1 | 9) => "#ff6b68",
        vt100::Color::Idx(2 | 10) => "#7ec878",
        vt100::Color::Idx(3 | 11) => "#e5c07b",
        vt100::Color::Idx(5 | 13) => "#c792ea",
        vt100::Color::Idx(6 | 14) => "#56c8d8",
        _ if look.is_dim => "#8b919d",
        _ => "#d7dae0",
    };
    if look.is_inverse {
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{length}\" height=\"{HEIGHT}\" fill=\"#d7dae0\"/>"
        );
    }
    let weight = if look.is_bold { " font-weight=\"bold\"" } else { "" };
    let line = if look.is_underlined { " text-decoration=\"underline\"" } else { "" };
    let text = kept.replace('&', "&amp;").replace('<', "&lt;");
    let baseline = y + HEIGHT - 4;
    // The length keeps the columns in place whatever the font.
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{baseline}\" fill=\"{colour}\"{weight}{line} xml:space=\"preserve\" \
         textLength=\"{length}\">{text}</text>"
    );
}
