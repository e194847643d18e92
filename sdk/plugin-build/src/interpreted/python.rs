//! Python: componentize-py of PyPI, pinned by digest, beside nothing of this machine but its interpreter.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{
    COMPONENT_DEADLINE, INSTALL_DEADLINE, Tool, Work,
    program::{Wanted, isolated},
    sources::{ENTRY, Sources},
    write,
};
use crate::{Error, Progress, cache, process::Run, project::Project};

const REQUIREMENTS: &str = include_str!("requirements.txt");

const PYTHON: Wanted = Wanted {
    program: "python3",
    minimum: (3, 9),
    fix: "install Python 3.10 or newer, on Debian with `apt-get install python3 python3-pip`",
};

/// The tool's own command, without a script whose first line would name a folder that is renamed later.
const START: &str = "import sys; from componentize_py import script; sys.exit(script())";

/// Parses each file, and says where one cannot be parsed; at last, whether it knows all the syntax that the component's
/// Python knows. It runs nothing of the files.
const LOOK: &str = "\
import sys
for name in sys.argv[1:]:
    try:
        with open(name, 'rb') as file:
            compile(file.read(), name, 'exec', dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line, column = getattr(error, 'lineno', None) or 1, getattr(error, 'offset', None) or 1
        print(f'{name}:{line}:{column}: {getattr(error, \"msg\", None) or error}')
print('newest' if sys.version_info >= (3, 14) else 'older')
";

/// How long that may take.
const LOOK_DEADLINE: Duration = Duration::from_secs(30);

/// What it printed.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    /// `rule.py:3:14: '(' was never closed`.
    mistakes: Vec<String>,
    /// Whether this machine's Python knows what the component's does.
    newest: bool,
}

impl Look {
    fn read(said: &str) -> Self {
        let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
        let newest = lines.pop().is_some_and(|last| last == "newest");
        Self { mistakes: lines, newest }
    }
}

/// The folder into which pip installed it.
pub(super) struct ComponentizePy(PathBuf);

impl Tool for ComponentizePy {
    const ENDING: &'static str = "py";

    fn prepare(cache: &Path, progress: &dyn Progress) -> Result<Self, Error> {
        PYTHON.find()?;
        let digest = hex::encode(&Sha256::digest(REQUIREMENTS)[..8]);
        cache::install(cache, &format!("languages/componentize-py-{digest}"), INSTALL_DEADLINE, |folder| {
            progress.step("fetching componentize-py from PyPI (17 MB, once)");
            let requirements = folder.join("requirements.txt");
            write(&requirements, REQUIREMENTS)?;
            let mut pip = isolated(PYTHON.program, folder);
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"])
                .args(["--only-binary=:all:", "--require-hashes", "--target"])
                .arg(folder.join("site"))
                .arg("--requirement")
                .arg(&requirements);
            let installed = Run::new("`pip install componentize-py`", INSTALL_DEADLINE)
                .on_line(&|line| progress.detail(line))
                .output(&mut pip);
            match installed {
                Err(Error::Failed { tail, .. }) if tail.contains("No module named pip") => Err(Error::Program {
                    program: "pip",
                    reason: "is not installed".to_owned(),
                    fix: "on Debian `apt-get install python3-pip`, elsewhere `python3 -m ensurepip --user`",
                }),
                other => other.map(drop),
            }
        })
        .map(Self)
    }

    /// Looks for syntax errors with this machine's Python. One that is older than the component's may not know new
    /// syntax: what it finds is printed, and the build continues.
    fn look_over(project: &Project, sources: &Sources, progress: &dyn Progress) -> Result<(), Error> {
        PYTHON.find()?;
        let names: Vec<&str> = sources.files().map(|(name, _)| name).filter(|name| name.ends_with(".py")).collect();
        let mut python = isolated(PYTHON.program, &project.folder);
        python.current_dir(&project.folder).args(["-I", "-c", LOOK]).args(names);
        let Ok(said) = Run::new("looking for syntax errors", LOOK_DEADLINE).output(&mut python) else {
            return Ok(());
        };
        match Look::read(&said.stdout) {
            Look { mistakes, .. } if mistakes.is_empty() => Ok(()),
            Look { mistakes, newest: true } => {
                Err(Error::Package { package: project.name.clone(), reason: mistakes.join("\n  ") })
            }
            Look { mistakes, .. } => {
                let it = "is a syntax error for this machine's Python, and likely for the newer one of the component";
                mistakes.iter().for_each(|mistake| progress.step(&format!("{mistake}: {it}")));
                Ok(())
            }
        }
    }

    fn inputs() -> Vec<&'static str> {
        vec!["python", REQUIREMENTS]
    }

    fn entry(project: &Project) -> String {
        let exports = match project.world {
            "bare-context" => "from jit_plugin.component.context import Context".to_owned(),
            "context-plugin" => "from jit_plugin.component.http_context import Context".to_owned(),
            "http-driver" => format!(
                "from jit_plugin.component import driver\nfrom jit_plugin.component.driver import Driver\n\
                 driver.identity = ({:?}, {:?})",
                project.name, project.version
            ),
            _ => "from jit_plugin.component.policy import Policy, Usage".to_owned(),
        };
        // In this order: the plugin gets its modules from the sandbox, and `component` looks for what it registered.
        format!("import jit_plugin.sandbox\nimport {}\n{exports}\n", project.module)
    }

    fn componentize(&self, work: &Work, project: &Project, progress: &dyn Progress) -> Result<(), Error> {
        progress.step(&format!("making a component of {} with CPython in it (about 20 s)", project.name));
        // componentize-py looks for installed packages there, and else in those of this machine.
        let empty = work.scratch.join("venv");
        cache::create_folder(&empty.join("lib/site-packages"))?;
        let mut python = isolated(PYTHON.program, &work.scratch);
        python
            .env("PYTHONPATH", self.0.join("site"))
            .env("VIRTUAL_ENV", &empty)
            .current_dir(&work.scratch)
            .args(["-c", START, "--quiet", "--wit-path"])
            .arg(&work.wit)
            .args(["--world", project.world, "componentize", "--stub-wasi", "--python-path"])
            .arg(&work.sources)
            .arg("--output")
            .arg(&work.out)
            .arg(ENTRY);
        Run::new(format!("making a component of {}", project.name), COMPONENT_DEADLINE)
            .on_line(&|line| progress.detail(line))
            .output(&mut python)
            .map(drop)
            .map_err(readable)
    }
}

/// Without the tool's own call stack: what helps is the exception in the policy, which comes before it.
fn readable(error: Error) -> Error {
    match error {
        Error::Failed { what, status, tail } => {
            let end = tail.find("\nStack backtrace:").unwrap_or(tail.len());
            let tail = tail[..end].replace("AssertionError: ", "");
            Error::Failed { what, status, tail }
        }
        other => other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_is_pinned_by_digest() {
        let lines = REQUIREMENTS.lines().filter(|line| !line.starts_with(['#', ' ']));
        assert!(lines.clone().count() > 0 && lines.into_iter().all(|line| line.contains("==")));
        assert!(REQUIREMENTS.matches("--hash=sha256:").count() >= 2);
    }

    #[test]
    fn a_syntax_error_is_found_at_its_place_before_anything_is_built() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("rule.py"), "def decide(request):\n    return (1\n").unwrap();
        std::fs::write(folder.path().join("other.py"), "x = 1\n").unwrap();
        let mut python = isolated(PYTHON.program, folder.path());
        python.current_dir(folder.path()).args(["-I", "-c", LOOK, "other.py", "rule.py"]);
        let said = Run::new("looking", LOOK_DEADLINE).output(&mut python).unwrap().stdout;
        let look = Look::read(&said);
        assert_eq!(look.mistakes.len(), 1, "{said}");
        assert!(look.mistakes[0].starts_with("rule.py:2:12: ") && look.mistakes[0].contains("never closed"), "{said}");
        assert_eq!(Look::read("newest\n"), Look { mistakes: Vec::new(), newest: true });
        assert_eq!(Look::read(""), Look { mistakes: Vec::new(), newest: false });
    }

    #[test]
    fn a_mistake_in_the_policy_is_told_without_the_tools_own_stack() {
        let tail =
            "AssertionError: Traceback (most recent call last):\nNameError: name 'x'\n\nStack backtrace:\n 0: anyhow";
        let error = readable(Error::Failed { what: "w".into(), status: "1".into(), tail: tail.into() });
        let text = error.to_string();
        assert!(text.contains("NameError: name 'x'") && !text.contains("anyhow"), "{text}");
    }
}
