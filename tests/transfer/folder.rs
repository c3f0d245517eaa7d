//! Folders of a test.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use serde_json::Value;

/// A folder that is removed at the end of the test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("frappe-transfer-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Every file with its content.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(&self.0).unwrap().map(Result::unwrap);
        entries
            .map(|it| (it.file_name().to_string_lossy().into_owned(), std::fs::read(it.path()).unwrap()))
            // JSON is compared without the order of its keys.
            .map(|(name, content)| match serde_json::from_slice::<Value>(&content) {
                Ok(json) if name == "contents.json" => (name, json.to_string().into_bytes()),
                _ => (name, content),
            })
            .collect()
    }

    /// Size of all parts.
    pub(crate) fn bytes(&self) -> usize {
        self.files().iter().filter(|(name, _)| *name != "contents.json").map(|(_, content)| content.len()).sum()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
