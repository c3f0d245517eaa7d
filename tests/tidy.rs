//! Rules of the source that a program can check: sizes, purity, wording, and documents that match the code.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Maximum lines of a Rust file.
const FILE_LINES_MAX: usize = 500;
/// Maximum lines of a function.
const FUNCTION_LINES_MAX: usize = 70;
/// Pure files, in addition to those whose docstring says "Pure": they use no client, clock, random numbers or log.
const PURE: [&str; 14] = [
    "src/domain/",
    "src/config.rs",
    "src/controllers/job.rs",
    "/build/",
    "/model",
    "/plan.rs",
    "/protection.rs",
    "/deletion.rs",
    "/operation.rs",
    "/permissions/",
    "/status.rs",
    "/validate.rs",
    "/watch.rs",
    "/reason.rs",
];
/// Words that pure code does not contain.
const IMPURE: [&str; 9] =
    ["async ", ".await", "Api<", "Client", "Timestamp::now", "Instant::now", "SystemTime::now", "rand::", "tracing::"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().filter_map(Result::ok) {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "snapshots" {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn files_are_short_and_have_a_docstring() {
    let mut wrong = Vec::new();
    for path in files(&root(), "rs") {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{} has {lines} lines", shown(&path)));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{} does not begin with //!", shown(&path)));
        }
    }
    none(&wrong);
}

#[test]
fn functions_are_short() {
    let mut wrong = Vec::new();
    for path in files(&root(), "rs") {
        let text = fs::read_to_string(&path).unwrap();
        let mut open: Option<(usize, usize)> = None;
        for (number, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let begins = line.trim_start().split("fn ").count() > 1
                && line.contains("fn ")
                && !line.trim_start().starts_with("//");
            if open.is_none() && begins && !line.trim_end().ends_with(';') {
                open = Some((number, indent));
            }
            if let Some((begun, at)) = open
                && indent == at
                && (line.trim() == "}" || (number == begun && line.trim_end().ends_with('}')))
            {
                if number - begun + 1 > FUNCTION_LINES_MAX {
                    wrong.push(format!("{}:{} has {} lines", shown(&path), begun + 1, number - begun + 1));
                }
                open = None;
            }
        }
    }
    none(&wrong);
}

#[test]
fn code_that_decides_is_pure() {
    let mut wrong = Vec::new();
    for path in files(&root().join("src"), "rs") {
        let name = shown(&path);
        let text = fs::read_to_string(&path).unwrap();
        let header: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        let is_marked = header.iter().any(|line| line.split([' ', '.']).any(|word| word == "Pure"));
        let pure = is_marked || (PURE.iter().any(|part| name.contains(part)) && !name.starts_with("src/io/"));
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate().filter(|(_, line)| pure && !line.trim_start().starts_with("//"))
        {
            for word in IMPURE.iter().filter(|word| contains_word(line, word)) {
                wrong.push(format!("{name}:{} contains {word:?}", number + 1));
            }
        }
    }
    none(&wrong);
}

/// Whether a line contains a word, and not a longer one that begins with it.
fn contains_word(line: &str, word: &str) -> bool {
    let longer = |rest: &str| rest.starts_with(char::is_alphanumeric) && word.ends_with(char::is_alphanumeric);
    line.match_indices(word).any(|(at, _)| !longer(&line[at + word.len()..]))
}

/// Names of values that are written for users.
const TEXT_NAMES: [&str; 6] = ["message", "said", "why", "note", "to_string()", "error"];
/// Methods and operators that read them.
const TEXT_READS: [&str; 7] =
    [".contains(", ".starts_with(", ".ends_with(", ".strip_prefix(", ".split_once(", ".find(", " == \""];
/// The API server responds to an apply of a field that its CRD does not have with an internal error, identified only by its message.
const ALLOWED_READ: &str = r#"500 if status.message.contains("failed to create typed patch object") => {"#;

/// Decisions depend on codes, statuses or reasons, which do not change when a message is reworded.
#[test]
fn no_decision_depends_on_the_text_of_a_message() {
    let mut wrong = Vec::new();
    for folder in ["src", "sharding/src"] {
        let all = files(&root().join(folder), "rs").into_iter();
        for path in all.filter(|it| !shown(it).contains("/tests") && !shown(it).contains("_tests")) {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for line in code.lines().filter(|line| line.trim() != ALLOWED_READ) {
                wrong.extend(read_of_text(line).map(|it| format!("{}: {it} in {}", shown(&path), line.trim())));
            }
        }
    }
    none(&wrong);
}

/// The method by which a line reads text for users, if it does: the last name of the receiver is in `TEXT_NAMES`.
fn read_of_text(line: &str) -> Option<&'static str> {
    let read = |method: &str| {
        line.match_indices(method).any(|(at, _)| {
            let before = line[..at].trim_end_matches(".as_str()");
            TEXT_NAMES.iter().any(|name| {
                let rest = before.strip_suffix(name);
                rest.is_some_and(|it| !it.ends_with(|letter: char| letter.is_alphanumeric() || letter == '_'))
            })
        })
    };
    TEXT_READS.into_iter().find(|method| read(method))
}

#[test]
fn decisions_by_the_text_of_a_message_are_found() {
    for line in [
        r#"if why.contains(&format!("{word}: ")) {"#,
        "condition.message.contains(&name)",
        r#"if said.contains("PersistentVolumeClaim") {"#,
        r#"Err(error) if error.to_string().contains("NoSuchUpload") => {}"#,
        r#"message.as_str() == "it does not exist""#,
    ] {
        assert!(read_of_text(line).is_some(), "{line}");
    }
    for line in ["names.contains(&name)", "details.causes.iter().find(|it| it.reason == cause)", "let message = why;"] {
        assert_eq!(read_of_text(line), None, "{line}");
    }
}

/// Phrases that text for users must not contain, each with the words to use instead.
const PHRASES: [(&str, &str); 20] = [
    ("made of", "consists of"),
    ("leads to", "routes to, connects to"),
    ("brought about", "applied"),
    ("brings about", "applies"),
    ("likewise", "also, or the noun again"),
    ("a person", "a user"),
    ("anew", "again, or recreate"),
    ("given back", "released"),
    ("given away", "handed over"),
    ("gives away", "hands over"),
    ("goes with it", "is deleted with it"),
    ("looks after", "reconciles, manages"),
    ("looked after", "reconciled, managed"),
    ("nobody", "no user, no replica"),
    ("somebody", "a user, another site"),
    ("for good", "permanently"),
    ("tried again", "retried"),
    ("is away", "is unavailable"),
    ("left out", "omitted, or say what the default is"),
    ("whoever", "a user who, a client that"),
];

/// Files of which users read the whole text.
fn for_users() -> Vec<PathBuf> {
    let mut found = ["README.md", "ARCHITECTURE.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"]
        .map(|it| root().join(it))
        .to_vec();
    found.extend(files(&root().join("docs"), "md").into_iter().filter(|it| !shown(it).starts_with("docs/adr/")));
    for extension in ["yaml", "txt", "json", "tpl"] {
        found.extend(files(&root().join("helm"), extension));
    }
    found
}

/// The parts of a Rust file that users read: string literals, and docstrings that `kubectl explain` or `--help` shows.
fn user_text(name: &str, text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default().replace("\\\"", "'").replace("'\"'", "' '");
    let explained = name.starts_with("crds/src/") || name == "src/cli.rs";
    let mut said = String::new();
    // A literal continues in the next line if it ends with a backslash.
    let mut is_open = false;
    for line in code.lines().map(str::trim_start) {
        if line.starts_with("//") {
            said.push_str(line.strip_prefix("/// ").filter(|_| explained).unwrap_or_default());
        } else {
            let odd = usize::from(!is_open);
            let parts: Vec<&str> = line.split('"').collect();
            let literals = parts.iter().skip(odd).step_by(2);
            said.push_str(&literals.map(|it| it.trim_end_matches('\\')).collect::<Vec<_>>().join(" | "));
            is_open = line.ends_with('\\') && parts.len().is_multiple_of(2) != is_open;
        }
        said.push(' ');
    }
    said
}

/// The first such phrase of a text, and the words to use instead. A phrase may span two lines.
fn phrase(text: &str) -> Option<(&'static str, &'static str)> {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let has = |phrase: &str| {
        words.match_indices(phrase).any(|(at, _)| {
            let is_letter = |it: Option<char>| it.is_some_and(char::is_alphabetic);
            !is_letter(words[..at].chars().next_back()) && !is_letter(words[at + phrase.len()..].chars().next())
        })
    };
    PHRASES.into_iter().find(|(phrase, _)| has(phrase))
}

#[test]
fn text_for_users_has_the_words_of_kubernetes() {
    let mut texts: Vec<(String, String)> =
        for_users().iter().map(|it| (shown(it), fs::read_to_string(it).unwrap())).collect();
    for folder in ["src", "crds/src", "sharding/src"] {
        let all = files(&root().join(folder), "rs").into_iter().map(|it| (shown(&it), it));
        for (name, path) in all.filter(|(name, _)| !name.contains("/tests") && !name.contains("_tests")) {
            let text = user_text(&name, &fs::read_to_string(path).unwrap());
            texts.push((name, text));
        }
    }
    let wrong = texts.iter().filter_map(|(name, text)| {
        let (phrase, better) = phrase(text)?;
        Some(format!("{name} says {phrase:?}: write {better}"))
    });
    none(&wrong.collect::<Vec<_>>());
}

#[test]
fn phrases_are_found() {
    for text in ["what it is made\n    of", "Nobody may", "failed for good: stop"] {
        assert!(phrase(text).is_some(), "{text}");
    }
    for text in ["manewer", "made often", "renewed a personal key"] {
        assert_eq!(phrase(text), None, "{text}");
    }
    let found = |name: &str, code: &str| phrase(&user_text(name, code)).map(|it| it.0);
    let code = "/// Anew.\n    // Likewise.\nlet a = f(\"hosts\", Holder::Nobody);\n#[cfg(test)]\n\"nobody\"";
    assert_eq!(found("src/a.rs", code), None);
    assert_eq!(found("crds/src/a.rs", code), Some("anew"));
    assert_eq!(found("src/a.rs", "f(\"a host \\\"x\\\" leads \\\n    to it\", \"b\");"), Some("leads to"));
    assert_eq!(found("src/a.rs", "f(\"a host leads \\\n    there\", to, \"made\", of);"), None);
}

#[test]
fn only_io_and_the_wiring_write_to_the_api_server() {
    let mut wrong = Vec::new();
    for path in files(&root().join("src"), "rs") {
        let name = shown(&path);
        if name.starts_with("src/io/") {
            continue;
        }
        let mut text = fs::read_to_string(&path).unwrap();
        if name == "src/commands/check.rs" {
            // A review is a query: it is not stored.
            text = text.replace("reviews.create(", "");
        }
        for word in [".patch(", ".replace(\"", ".create(&PostParams", "replace_status(&", ".delete_collection("] {
            if text.contains(word) && text.contains("Api<") {
                wrong.push(format!("{name} says {word:?}"));
            }
        }
    }
    none(&wrong);
}

#[test]
fn the_sharding_crate_does_not_depend_on_frappe() {
    let mut wrong = Vec::new();
    for path in files(&root().join("sharding"), "rs") {
        let text = fs::read_to_string(&path).unwrap().to_lowercase();
        for word in ["frappe", "vyogo", "bench", "erpnext"] {
            if text.contains(word) {
                wrong.push(format!("{} says {word:?}", shown(&path)));
            }
        }
    }
    none(&wrong);
}

/// Every invariant of ARCHITECTURE.md is named by a test, and every invariant that a test names is in ARCHITECTURE.md.
#[test]
fn invariants_and_tests_name_each_other() {
    let document = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let listed: Vec<String> = document
        .lines()
        .filter_map(|line| line.strip_prefix("- **"))
        .filter_map(|line| line.split_once("**"))
        .map(|(id, _)| id.to_owned())
        .filter(|id| id.starts_with("R-") || id.starts_with("S-"))
        .collect();
    assert!(listed.len() >= 10, "ARCHITECTURE.md lists {listed:?}");
    let mut tests = String::new();
    for path in files(&root(), "rs").into_iter().filter(|path| shown(path) != "tests/tidy.rs") {
        tests.push_str(&fs::read_to_string(&path).unwrap());
    }
    let named = |id: &str| tests.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).any(|word| word == id);
    none(&listed.iter().filter(|id| !named(id)).map(|id| format!("{id} is named by no test")).collect::<Vec<_>>());
}

#[test]
fn the_readme_has_two_commands_and_the_documents_exist() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for word in ["make demo", "make test", "ARCHITECTURE.md", "Apache-2.0"] {
        assert!(readme.contains(word), "README.md does not contain {word}");
    }
    let records = files(&root().join("docs/adr"), "md").len();
    assert!(records >= 4, "{records} decisions are recorded");
}

/// The target of every relative link exists: the file, and the heading if the link names one.
#[test]
fn targets_of_links_exist() {
    let mut pages = files(&root().join("docs"), "md");
    let tops = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "loadtest/README.md"];
    pages.extend(tops.iter().map(|it| root().join(it)));
    let mut wrong = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            let has_heading = || {
                let text = fs::read_to_string(&target).unwrap_or_default();
                heading.is_empty() || text.lines().any(|line| line.starts_with('#') && anchor(line) == heading)
            };
            if !target.exists() || !has_heading() {
                wrong.push(format!("{}: {link}", shown(&page)));
            }
        }
    }
    none(&wrong);
}

/// The anchor of a heading.
fn anchor(heading: &str) -> String {
    let plain = |it: &char| it.is_alphanumeric() || " -_".contains(*it);
    heading.trim_start_matches('#').trim().to_lowercase().chars().filter(plain).collect::<String>().replace(' ', "-")
}

#[test]
fn the_slot_maps_crd_matches_the_code() {
    let wanted = frappe_operator::parts::names("any").definition();
    let path = root().join("crds/vyogo.tech_slotmaps.yaml");
    let found = serde_yaml_ng::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(wanted, found, "run `make crds`");
}

/// `.dockerignore` allows everything that the image is built from: every file that the sources include, every member of the
/// workspace, and the files that the last stage copies.
#[test]
fn the_image_build_has_all_its_files() {
    let ignore = fs::read_to_string(root().join(".dockerignore")).unwrap();
    let taken: Vec<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let is_taken = |path: &Path| taken.iter().any(|it| path.starts_with(root().join(it)));
    let mut wrong = Vec::new();
    for path in files(&root().join("src"), "rs") {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for included in code.split("include_str!(\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            let file = path.parent().unwrap().join(included).canonicalize().unwrap();
            if !is_taken(&file) {
                wrong.push(format!("{} includes {included}, which is not in the image's build", shown(&path)));
            }
        }
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = [")).unwrap();
    let members = members.trim_end_matches(']').split(", ").map(|it| it.trim_matches('"')).filter(|it| *it != ".");
    wrong
        .extend(members.filter(|it| !is_taken(&root().join(it))).map(|it| format!("{it} is not in the image's build")));
    let dockerfile = fs::read_to_string(root().join("Dockerfile")).unwrap();
    let copies =
        dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|it| !it.starts_with("--from"));
    for copied in copies.flat_map(|line| line.split(' ').rev().skip(1)).filter(|it| *it != ".") {
        if !is_taken(&root().join(copied)) {
            wrong.push(format!("{copied}, which the Dockerfile copies, is not in the image's build"));
        }
    }
    none(&wrong);
}

/// ADR 22: the election's crate accepts newer types of the Kubernetes API than those of the client library that it is built on.
#[test]
fn the_election_uses_the_types_of_the_client_library() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let entry = lock.split("[[package]]").find(|it| it.contains("name = \"kube-leader-election\"")).unwrap_or_default();
    assert!(
        entry.contains("k8s-openapi 0.28"),
        "in Cargo.lock, kube-leader-election must have k8s-openapi 0.28:{entry}"
    );
}

/// The tests that docs/testing.md names for updates exist.
#[test]
fn named_tests_exist() {
    let page = fs::read_to_string(root().join("docs/testing.md")).unwrap();
    let section = page.split("\n## ").find(|it| it.starts_with("Updates\n")).expect("the section");
    let words = section.lines().filter(|it| it.starts_with('|')).flat_map(|it| it.split('`').skip(1).step_by(2));
    let named: Vec<&str> = words.filter(|it| it.contains('_')).collect();
    assert!(named.len() > 40, "{named:?}");
    let sources = ["rs", "py"].iter().flat_map(|kind| files(&root(), kind));
    let texts: Vec<String> = sources.map(|path| fs::read_to_string(path).unwrap()).collect();
    let exists = |name: &str| {
        let heads = [format!("fn {name}("), format!("def {name}(")];
        texts.iter().any(|text| heads.iter().any(|head| text.contains(head)))
    };
    none(&named.iter().filter(|it| !exists(it)).map(|it| format!("{it} does not exist")).collect::<Vec<_>>());
}
