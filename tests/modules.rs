//! The modules of each crate have no import cycles, and their public items have docstrings.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{Item, UseTree, visit::Visit};

/// A module's path below its crate: `["controllers", "site", "plan"]`.
type Module = Vec<String>;
/// The modules that each module imports.
type Graph = BTreeMap<Module, BTreeSet<Module>>;

/// Folders with the source of one crate each, and the file that is its root.
const CRATES: [(&str, &str); 13] = [
    ("src", "lib.rs"),
    ("crds/src", "lib.rs"),
    ("sharding/src", "lib.rs"),
    ("sharding/sim/src", "lib.rs"),
    ("loadtest/src", "lib.rs"),
    ("loadtest/src/bin/fleet", "main.rs"),
    ("loadtest/src/bin/loadtest", "main.rs"),
    ("tests/it", "main.rs"),
    ("tests/model", "main.rs"),
    ("tests/transfer", "main.rs"),
    ("sharding/tests/model", "main.rs"),
    ("sharding/tests/sim", "main.rs"),
    ("bench/benches", "core.rs"),
];

fn root() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap())
}

/// Every module of a crate with its file. Tests are omitted: they may import what they test and its imports.
fn modules(source: &Path, root: &str) -> BTreeMap<Module, PathBuf> {
    let mut found = BTreeMap::from([(Module::new(), source.join(root))]);
    let mut folders = vec![(source.to_path_buf(), Module::new())];
    while let Some((folder, above)) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().filter_map(Result::ok) {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let below = |name: &str| above.iter().cloned().chain([name.to_string()]).collect::<Module>();
            if path.is_dir() {
                folders.push((path, below(&name)));
            } else if name == "mod.rs" {
                found.insert(above.clone(), path);
            } else if let Some(stem) = name
                .strip_suffix(".rs")
                .filter(|_| above.len() + usize::from(name != "lib.rs" && name != "main.rs") > 0)
            {
                found.insert(below(stem), path);
            }
        }
    }
    found.retain(|module, _| !module.iter().any(|it| it == "tests" || it == "bin"));
    found
}

/// Collects the modules that one file imports.
struct Names<'a> {
    here: &'a Module,
    known: &'a BTreeSet<Module>,
    /// Modules that the file's `use` lines import, by their local names.
    brought: BTreeMap<String, Module>,
    found: BTreeSet<Module>,
}

impl Names<'_> {
    /// The absolute path of a path in this file, if it is of this crate.
    fn absolute(&self, written: &[String]) -> Option<Module> {
        let first = written.first()?;
        let mut path = match first.as_str() {
            "crate" => Module::new(),
            "self" | "super" => self.here.clone(),
            name => {
                let child: Module = self.here.iter().cloned().chain([name.to_string()]).collect();
                if let Some(module) = self.brought.get(name) {
                    module.clone()
                } else if self.known.contains(&child) {
                    child
                } else {
                    return None;
                }
            }
        };
        for part in &written[usize::from(first != "super")..] {
            if part == "super" {
                path.pop();
            } else {
                path.push(part.clone());
            }
        }
        Some(path)
    }

    /// The longest prefix of a path that is a module.
    fn module(&self, mut path: Module) -> Module {
        while !self.known.contains(&path) {
            path.pop();
        }
        path
    }

    fn names(&mut self, written: &[String]) {
        if let Some(path) = self.absolute(written) {
            let module = self.module(path);
            if module != *self.here {
                self.found.insert(module);
            }
        }
    }

    fn used(&mut self, tree: &UseTree, before: &mut Vec<String>) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.used(&path.tree, before);
                before.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|it| self.used(it, before)),
            UseTree::Glob(_) => self.names(before),
            UseTree::Name(name) => self.bring(&name.ident.to_string(), &name.ident.to_string(), before),
            UseTree::Rename(name) => self.bring(&name.ident.to_string(), &name.rename.to_string(), before),
        }
    }

    /// An imported module counts where it is used, any other item where it is imported.
    fn bring(&mut self, name: &str, known_as: &str, before: &mut Vec<String>) {
        if name == "self" {
            let (last, path) = (before.last().cloned().unwrap_or_default(), self.absolute(before));
            if let Some(path) = path.filter(|it| self.known.contains(it)) {
                self.brought.insert(if known_as == "self" { last } else { known_as.to_string() }, path);
            }
            return;
        }
        before.push(name.to_string());
        match self.absolute(before).filter(|it| self.known.contains(it) && !it.is_empty()) {
            Some(path) => drop(self.brought.insert(known_as.to_string(), path)),
            None => self.names(before),
        }
        before.pop();
    }
}

fn only_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|it| matches!(&it.meta, syn::Meta::List(list) if list.path.is_ident("cfg") && list.tokens.to_string().contains("test")))
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Mod(it) if only_for_tests(&it.attrs) => {}
            Item::Use(it) if only_for_tests(&it.attrs) => {}
            Item::Use(it) => self.used(&it.tree, &mut Vec::new()),
            it => syn::visit::visit_item(self, it),
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() && path.segments.len() > 1 {
            let written: Vec<String> = path.segments.iter().map(|it| it.ident.to_string()).collect();
            self.names(&written);
        }
        syn::visit::visit_path(self, path);
    }
}

/// The imports between the modules of one crate.
fn graph(source: &Path, root: &str) -> Graph {
    let files = modules(source, root);
    let known: BTreeSet<Module> = files.keys().cloned().collect();
    let mut graph = Graph::new();
    for (module, path) in &files {
        let file = syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap();
        graph.insert(module.clone(), named(&file, module, &known));
    }
    graph
}

/// The modules that a file imports: `use` lines first, because a path may begin with an import further down.
fn named(file: &syn::File, here: &Module, known: &BTreeSet<Module>) -> BTreeSet<Module> {
    let mut names = Names { here, known, brought: BTreeMap::new(), found: BTreeSet::new() };
    for item in &file.items {
        if let Item::Use(it) = item
            && !only_for_tests(&it.attrs)
        {
            names.used(&it.tree, &mut Vec::new());
        }
    }
    names.visit_file(file);
    names.found
}

/// Modules that can be reached from a module.
fn reached(graph: &Graph, from: &Module) -> BTreeSet<Module> {
    let mut seen = BTreeSet::new();
    let mut next: Vec<&Module> = graph.get(from).into_iter().flatten().collect();
    while let Some(module) = next.pop() {
        if seen.insert(module.clone()) {
            next.extend(graph.get(module).into_iter().flatten());
        }
    }
    seen
}

/// Each group of modules that reach one another, with their imports within the group.
fn cycles(graph: &Graph) -> Vec<String> {
    let reach: BTreeMap<&Module, BTreeSet<Module>> = graph.keys().map(|it| (it, reached(graph, it))).collect();
    let mut found = BTreeSet::new();
    for (module, from_here) in reach.iter().filter(|(module, from_here)| from_here.contains(**module)) {
        let cycle: BTreeSet<&Module> = from_here.iter().filter(|it| reach[it].contains(*module)).collect();
        found.insert(cycle);
    }
    let shown = |it: &Module| if it.is_empty() { "(root)".to_string() } else { it.join("::") };
    let line = |cycle: &BTreeSet<&Module>| {
        let each = cycle.iter().map(|it| {
            let names: Vec<String> = graph[*it].iter().filter(|to| cycle.contains(to)).map(shown).collect();
            format!("  {} imports {}", shown(it), names.join(", "))
        });
        format!("a cycle of {} modules:\n{}", cycle.len(), each.collect::<Vec<_>>().join("\n"))
    };
    found.iter().map(line).collect()
}

#[test]
fn modules_have_no_import_cycles() {
    let mut wrong = Vec::new();
    for (source, file) in CRATES {
        wrong.extend(cycles(&graph(&root().join(source), file)).into_iter().map(|it| format!("{source}: {it}")));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_form_of_an_import_is_found() {
    let known: BTreeSet<Module> =
        [vec![], vec!["a".to_string()], vec!["a".to_string(), "b".to_string()], vec!["c".to_string()]].into();
    let here = vec!["a".to_string()];
    for text in [
        "use crate::c::Thing;",
        "use super::c::Thing;",
        "use super::c; fn f() { c::thing() }",
        "use crate::{a::b, c}; fn f(it: c::Thing) {}",
        "use crate::c as d; fn f() -> d::Thing { d::Thing }",
        "use crate::c::{self}; fn f() { c::thing() }",
        "fn f() { crate::c::thing() }",
        "use crate::c::*;",
        "mod m { fn f() { crate::c::thing() } }",
    ] {
        let found = named(&syn::parse_file(text).unwrap(), &here, &known);
        assert!(found.contains(&vec!["c".to_string()]), "{text} imports {found:?}");
    }
    let tests = named(&syn::parse_file("#[cfg(test)] mod tests { use crate::c::Thing; }").unwrap(), &here, &known);
    assert!(tests.is_empty(), "{tests:?}");
    let two =
        Graph::from([(here.clone(), [vec!["c".to_string()]].into()), (vec!["c".to_string()], [here.clone()].into())]);
    assert_eq!(cycles(&two), ["a cycle of 2 modules:\n  a imports c\n  c imports a"]);
}

/// Maximum files from a reconcile to its write.
const WAY_FILES_MAX: usize = 8;

/// The files `a.rs` → `b.rs` of a line of ARCHITECTURE.md that begins with "Path: ".
fn way(line: &str) -> Option<Vec<PathBuf>> {
    let files = line.strip_prefix("Path: ")?;
    Some(files.split(" → ").map(|it| PathBuf::from(it.trim_matches(['`', '.']))).collect())
}

/// The files of a path are read from first to last: none imports one before it.
#[test]
fn no_path_of_the_architecture_goes_back() {
    let (source, file) = CRATES[0];
    let (graph, files) = (graph(&root().join(source), file), modules(&root().join(source), file));
    let module = |path: &PathBuf| files.iter().find(|(_, it)| **it == root().join(path)).map(|(module, _)| module);
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let ways: Vec<Vec<PathBuf>> = text.lines().filter_map(way).collect();
    assert_eq!(ways.len(), 3, "one for each kind");
    for way in ways {
        assert!(way.len() <= WAY_FILES_MAX, "{way:?} has {} files", way.len());
        let way: Vec<&Module> =
            way.iter().map(|it| module(it).unwrap_or_else(|| panic!("{} is no module", it.display()))).collect();
        for (at, later) in way.iter().enumerate() {
            let back = way[..at].iter().find(|earlier| graph[*later].contains(**earlier));
            assert!(back.is_none(), "{} imports {back:?}, which precedes it", later.join("::"));
        }
    }
}

/// Collects public items without a docstring.
struct Undocumented<'a> {
    file: &'a str,
    found: Vec<String>,
}

impl Undocumented<'_> {
    fn check(&mut self, attributes: &[syn::Attribute], is_public: bool, name: &impl ToString) {
        if is_public && !attributes.iter().any(|it| it.path().is_ident("doc")) {
            self.found.push(format!("{}: {} has no docstring", self.file, name.to_string()));
        }
    }
}

fn is_public(visibility: &syn::Visibility) -> bool {
    !matches!(visibility, syn::Visibility::Inherited)
}

impl<'ast> Visit<'ast> for Undocumented<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Mod(it) if only_for_tests(&it.attrs) => return,
            Item::Fn(it) => return self.check(&it.attrs, is_public(&it.vis), &it.sig.ident),
            Item::Const(it) => self.check(&it.attrs, is_public(&it.vis), &it.ident),
            Item::Static(it) => self.check(&it.attrs, is_public(&it.vis), &it.ident),
            Item::Type(it) => self.check(&it.attrs, is_public(&it.vis), &it.ident),
            Item::Trait(it) => self.check(&it.attrs, is_public(&it.vis), &it.ident),
            Item::Struct(it) => self.check(&it.attrs, is_public(&it.vis), &it.ident),
            Item::Enum(it) => {
                self.check(&it.attrs, is_public(&it.vis), &it.ident);
                // The docstring of an enum that lists words of another system is enough.
                let words = it.variants.iter().all(|it| it.fields.is_empty() && it.attrs.is_empty());
                for variant in it.variants.iter().filter(|_| is_public(&it.vis) && !words) {
                    self.check(&variant.attrs, true, &format!("{}::{}", it.ident, variant.ident));
                }
            }
            Item::Impl(it) if it.trait_.is_some() => return,
            _ => {}
        }
        syn::visit::visit_item(self, item);
    }

    fn visit_impl_item_fn(&mut self, it: &'ast syn::ImplItemFn) {
        self.check(&it.attrs, is_public(&it.vis), &it.sig.ident);
    }

    fn visit_field(&mut self, it: &'ast syn::Field) {
        let name = it.ident.as_ref().map(ToString::to_string).unwrap_or_default();
        self.check(&it.attrs, matches!(it.vis, syn::Visibility::Public(_)) && !name.is_empty(), &name);
    }
}

#[test]
fn public_items_have_docstrings() {
    let mut wrong = Vec::new();
    let (source, file) = CRATES[0];
    for (module, path) in modules(&root().join(source), file) {
        let parsed = syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap();
        let name = module.join("::");
        let mut undocumented = Undocumented { file: &name, found: Vec::new() };
        undocumented.visit_file(&parsed);
        wrong.extend(undocumented.found);
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
