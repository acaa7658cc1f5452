//! Parses a shell line if it is a simple command: words, quotes, and assignments before it.

/// A command that needs no shell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Simple {
    /// `NAME=value` before the command.
    pub(super) assignments: Vec<(String, String)>,
    /// The command and its arguments; empty if there is none.
    pub(super) words: Vec<String>,
}

/// Something that only a shell can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NeedsShell {
    /// The text in the line: `&&`, `|`, `$`.
    pub(super) what: String,
    /// The rest of the line after the last `&&` or `;`, if nothing else needs a shell.
    pub(super) last: Option<String>,
}

/// Words that the shell itself carries out, or that begin a construct of the shell.
const BUILTINS: [&str; 22] = [
    ".", ":", "[", "alias", "case", "cd", "command", "eval", "export", "for", "if", "read", "set",
    "shift", "source", "test", "trap", "ulimit", "umask", "unset", "until", "while",
];

/// Commands that often end a line, and serve nobody.
const ENDS_AT_ONCE: [&str; 8] =
    ["echo", "exit", "false", "kill", "printf", "sleep", "true", "wait"];

/// Splits a line into words.
///
/// # Errors
/// [`NeedsShell`] with the first thing that is not part of a simple command.
pub(super) fn parse(line: &str) -> Result<Simple, NeedsShell> {
    parse_alone(line).map_err(|what| NeedsShell { last: last_part(line), what })
}

/// The last of the commands that are joined one after the other, apart from those that end at once:
/// the program is one before them.
fn last_part(line: &str) -> Option<String> {
    let joint = |mark: &str| line.rfind(mark).map(|at| (at, at + mark.len()));
    let (to, from) = [joint("&&"), joint(";"), joint("\n")].into_iter().flatten().max()?;
    let (earlier, before, last) = (line.get(..to)?, line.get(..from)?, line.get(from..)?.trim());
    // A quote or bracket left open before this point continues after it.
    let is_open = |mark: char| before.matches(mark).count() % 2 == 1;
    if is_open('\'') || is_open('"') || before.contains('(') {
        return None;
    }
    if serves(last)? {
        return Some(last.to_owned());
    }
    let earlier = earlier.trim();
    last_part(earlier).or_else(|| serves(earlier)?.then(|| earlier.to_owned()))
}

/// Whether a command may be the program; `None` if it is none, or needs a shell.
fn serves(command: &str) -> Option<bool> {
    let simple = parse_alone(command).ok()?;
    Some(!ENDS_AT_ONCE.contains(&simple.words.first()?.as_str()))
}

fn parse_alone(line: &str) -> Result<Simple, String> {
    let mut simple = Simple::default();
    let mut chars = line.chars().peekable();
    loop {
        while chars.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
        if chars.peek().is_none() {
            break;
        }
        let word = word(&mut chars, simple.words.is_empty())?;
        match word {
            Word::Assignment(name, value) => simple.assignments.push((name, value)),
            // `exec` would replace the shell, but there is no shell.
            Word::Plain(text, true) if text == "exec" && simple.words.is_empty() => {}
            Word::Plain(text, true)
                if simple.words.is_empty() && BUILTINS.contains(&text.as_str()) =>
            {
                return Err(text);
            }
            Word::Plain(text, _) => simple.words.push(text),
        }
    }
    Ok(simple)
}

enum Word {
    Assignment(String, String),
    /// The word, and whether no part of it was quoted.
    Plain(String, bool),
}

fn word(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    may_assign: bool,
) -> Result<Word, String> {
    let mut text = String::new();
    let mut bare = true;
    let mut name: Option<String> = None;
    let mut first = true;
    while let Some(c) = chars.next_if(|c| !matches!(c, ' ' | '\t')) {
        match c {
            '\'' => {
                bare = false;
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => text.push(c),
                        None => return Err("'".into()),
                    }
                }
            }
            '"' => {
                bare = false;
                double_quoted(chars, &mut text)?;
            }
            '\\' => {
                bare = false;
                match chars.next() {
                    Some('\n') | None => return Err("\\".into()),
                    Some(c) => text.push(c),
                }
            }
            '&' | '|' | ';' => {
                let twice = c != ';' && chars.next_if_eq(&c).is_some();
                return Err(if twice { format!("{c}{c}") } else { c.into() });
            }
            '\n' | '<' | '>' | '(' | ')' | '$' | '`' | '*' | '?' | '[' => {
                return Err(if c == '\n' { "a second line".into() } else { c.into() });
            }
            '#' | '~' | '!' | '{' if first => return Err(c.into()),
            '=' if may_assign && bare && name.is_none() && is_name(&text) => {
                name = Some(std::mem::take(&mut text));
            }
            c => text.push(c),
        }
        first = false;
    }
    Ok(match name {
        Some(name) => Word::Assignment(name, text),
        None => Word::Plain(text, bare),
    })
}

fn double_quoted(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    text: &mut String,
) -> Result<(), String> {
    loop {
        match chars.next() {
            Some('"') => return Ok(()),
            Some(c @ ('$' | '`')) => return Err(c.into()),
            Some('\\') => match chars.next() {
                Some(c @ ('"' | '\\' | '$' | '`')) => text.push(c),
                Some('\n') => {}
                Some(c) => text.extend(['\\', c]),
                None => return Err("\"".into()),
            },
            Some(c) => text.push(c),
            None => return Err("\"".into()),
        }
    }
}

/// True if this can be the name of a variable.
pub(crate) fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The words as a person would type them.
pub(super) fn typed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    let typed = words.into_iter().map(|word| {
        if !word.is_empty() && word.chars().all(is_plain) {
            word.to_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    typed.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        let simple = parse(line).unwrap_or_else(|error| panic!("{line}: {error:?}"));
        assert!(simple.assignments.is_empty(), "{line}");
        simple.words
    }

    fn what(line: &str) -> String {
        parse(line).expect_err(line).what
    }

    #[test]
    fn words_and_quotes() {
        assert_eq!(words("  node\t server.js  "), ["node", "server.js"]);
        assert_eq!(words(r#"node "a b" 'c $d' e\ f"#), ["node", "a b", "c $d", "e f"]);
        assert_eq!(words(r#"a "say \"x\" \n" ''"#), ["a", r#"say "x" \n"#, ""]);
        assert_eq!(words("exec node x"), ["node", "x"]);
        assert_eq!(words("a cd b=c d#e x~"), ["a", "cd", "b=c", "d#e", "x~"]);
        assert_eq!(words(""), [""; 0]);
    }

    #[test]
    fn assignments_come_first() {
        let simple = parse("NODE_ENV=production P='a b' node x Q=r").unwrap();
        let expected =
            [("NODE_ENV", "production"), ("P", "a b")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(simple.assignments, expected);
        assert_eq!(simple.words, ["node", "x", "Q=r"]);
        assert_eq!(words("1A=b node"), ["1A=b", "node"]);
    }

    #[test]
    fn shell_syntax_is_named() {
        for (line, named) in [
            ("tsc && node x", "&&"),
            ("a || b", "||"),
            ("a | b", "|"),
            ("a & b", "&"),
            ("a; b", ";"),
            ("a > b", ">"),
            ("a 2>&1", ">"),
            ("a < b", "<"),
            ("a $(b)", "$"),
            ("a \"$B\"", "$"),
            ("a `b`", "`"),
            ("a *.js", "*"),
            ("(a)", "("),
            ("~/a", "~"),
            ("a\nb", "a second line"),
            ("cd b", "cd"),
            ("if true", "if"),
            ("a 'b", "'"),
            ("a \"b", "\""),
            ("a \\", "\\"),
        ] {
            assert_eq!(what(line), named, "{line}");
        }
    }

    #[test]
    fn the_last_of_several_is_what_to_run() {
        let last = |line: &str| parse(line).unwrap_err().last;
        assert_eq!(last("tsc && node dist/app.js").as_deref(), Some("node dist/app.js"));
        assert_eq!(last("a; b && A=1 c d").as_deref(), Some("A=1 c d"));
        assert_eq!(last("a && b | c"), None);
        assert_eq!(last("a '&& b c' | d"), None);
        assert_eq!(last("node $X"), None);
        assert_eq!(last("a &&"), None);
    }

    #[test]
    fn typed_words_parse_back() {
        let all = ["node", "a b", "it's", "", "x=y"];
        assert_eq!(typed(all), r"node 'a b' 'it'\''s' '' x=y");
        assert_eq!(words(&typed(all)), all);
    }
}
