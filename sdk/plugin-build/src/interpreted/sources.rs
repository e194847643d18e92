//! The sources of a plugin, read once: what is hashed is what is built.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::write;
use crate::{Error, project::Project};

/// The most files of a project.
const MAX_FILES: usize = 2_000;
/// The most bytes of a project.
const MAX_BYTES: u64 = 16 << 20;
/// The deepest folder.
const MAX_DEPTH: usize = 16;
/// What is left out: results, tests, and what other tools keep there. Hidden files are left out too.
const LEFT_OUT: [&str; 6] = ["__pycache__", "node_modules", "target", "test", "tests", "venv"];
/// The entry's name without its ending.
pub(super) const ENTRY: &str = "jit_plugin_entry";

/// Files by their path in the project, with `/`.
pub(super) struct Sources(BTreeMap<String, Vec<u8>>);

impl Sources {
    /// Reads the project's folder. Links are left out: what they lead to is not the project's.
    pub(super) fn read(project: &Project) -> Result<Self, Error> {
        let mut reading = Reading { files: BTreeMap::new(), bytes: 0, root: &project.folder };
        reading.folder(&project.folder, 0)?;
        Ok(Self(reading.files))
    }

    /// The files, in order.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    /// Writes them to a new folder, with the entry.
    pub(super) fn write(&self, folder: &Path, entry: &str, ending: &str) -> Result<(), Error> {
        for (name, bytes) in &self.0 {
            write(&folder.join(name), bytes)?;
        }
        write(&folder.join(format!("{ENTRY}.{ending}")), entry)
    }
}

struct Reading<'a> {
    files: BTreeMap<String, Vec<u8>>,
    bytes: u64,
    root: &'a Path,
}

impl Reading<'_> {
    fn folder(&mut self, folder: &Path, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(self.too_much(folder, format!("folders lie more than {MAX_DEPTH} deep")));
        }
        for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
            let entry = entry.map_err(Error::io("read", folder))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') || LEFT_OUT.contains(&name.as_ref()) {
                continue;
            }
            let path = entry.path();
            let kind = entry.file_type().map_err(Error::io("read", &path))?;
            if kind.is_dir() {
                self.folder(&path, depth + 1)?;
            } else if kind.is_file() {
                self.file(path)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf) -> Result<(), Error> {
        // Of other files, those that modules may read while the snapshot is made: data in JSON and text. Not what
        // an earlier build left, nor the description of the project.
        let wanted = path
            .extension()
            .is_some_and(|ending| ["py", "js", "mjs", "json", "txt", "csv"].iter().any(|wanted| ending == *wanted));
        if !wanted {
            return Ok(());
        }
        let size = fs::metadata(&path).map_err(Error::io("read", &path))?.len();
        self.bytes = self.bytes.saturating_add(size);
        if self.files.len() >= MAX_FILES || self.bytes > MAX_BYTES {
            let reason = format!("it holds more than {MAX_FILES} source files or {} MB", MAX_BYTES >> 20);
            return Err(self.too_much(self.root, reason));
        }
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        let name = path.strip_prefix(self.root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        self.files.insert(name, bytes);
        Ok(())
    }

    fn too_much(&self, folder: &Path, reason: String) -> Error {
        Error::Package {
            package: folder.display().to_string(),
            reason: format!("{reason}; a plugin's folder holds the plugin and nothing else"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn what_is_no_source_stays_out() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str| write(&folder.path().join(name), name).unwrap();
        for name in ["rule.py", "inner/part.py", "data.json"] {
            put(name);
        }
        for name in
            [".git/x.py", "tests/t.py", "target/plugins/x.wasm", "__pycache__/rule.py", "README.md", "inner/.env.py"]
        {
            put(name);
        }
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link.py")).unwrap();
        std::os::unix::fs::symlink("/etc", folder.path().join("etc")).unwrap();
        let project = Project {
            folder: folder.path().to_owned(),
            name: "x".into(),
            version: "1".into(),
            kind: Kind::Policy,
            world: "usage-policy-plugin",
            module: "rule".into(),
        };
        let sources = Sources::read(&project).unwrap();
        assert_eq!(
            sources.files().map(|(name, _)| name).collect::<Vec<_>>(),
            ["data.json", "inner/part.py", "rule.py"]
        );
        let out = folder.path().join("out");
        sources.write(&out, "entry", "py").unwrap();
        assert_eq!(fs::read_to_string(out.join("inner/part.py")).unwrap(), "inner/part.py");
        for place in 0..MAX_FILES {
            put(&format!("many/{place}.py"));
        }
        let error = Sources::read(&project).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("nothing else"), "{error}");
    }
}
