//! Each form, read back by the programs that it is promised for.
//!
//! A value is either read as it was meant, by every reader of the form, or the form refuses it. Readers that are not
//! on this machine are named as not run; `cargo xtask test` brings them.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::*;
use crate::format::tests::written;

/// What a reader says that found no such variable.
const ABSENT: &str = "\u{1}absent";

/// Values that have been trouble somewhere, each printable ASCII sign in each place, and signs with a meaning in
/// every mix.
fn corpus() -> Vec<String> {
    let mut values: Vec<String> = [
        "it's",
        "'",
        "''",
        "'a'",
        "\"",
        "\"\"",
        "\"a\"",
        "`",
        "`a`",
        "'\"",
        "\"'",
        "it's \"it\"",
        "it's `it`",
        "it's $5",
        "a'b\\c",
        "\\",
        "\\\\",
        "a\\",
        "a\\\\",
        "a\\\\b",
        "\\a",
        "\\n",
        "\\t",
        "\\r",
        "\\'",
        "\\\"",
        "a\\'b",
        "a\\\\'b",
        "\\u0041",
        "\\x41",
        "\\s",
        "\\b",
        "a\\ b",
        "$X",
        "${X}",
        "a${X}b",
        "${HOME}",
        "$(id)",
        "`id`",
        "$$",
        "$",
        "${",
        "$HOME",
        "%s",
        "%n",
        "%%",
        "{{x}}",
        "a\nb",
        "\n",
        "a\n",
        "\na",
        "a\nB=c",
        "a\nB='c'",
        "it's\n\"two\"",
        "a\n#b",
        "a\r\nb",
        "a\rb",
        "\t",
        "a\tb",
        "\u{b}",
        "\u{c}",
        "\u{1}",
        "\u{1b}[0m",
        "\u{7f}",
        " ",
        "  a",
        "a  ",
        " a b ",
        "#",
        "#a",
        "a#b",
        "a #b",
        "a # b",
        "'a' #b",
        "export A=b",
        "A=b",
        "=",
        "==",
        "a=b=c",
        ":",
        "a: b",
        ";",
        "; a",
        "!",
        "!a",
        "~",
        "~/a",
        "*",
        "*:*:*",
        "a:b",
        "a\\:b",
        "[a]",
        "-a",
        "&&",
        "|",
        "<a>",
        "(",
        ")",
        "ü",
        "é'è",
        "日本\"語'",
        "🦀",
        "\u{2028}",
        "a\u{2028}b'",
        "\u{85}",
        "\u{a0}a\u{a0}",
        "\u{feff}",
        "\u{feff}a'\"",
        "\u{fffd}",
        "\u{ffff}",
        "\u{fdd0}",
        "a\u{301}",
        "null",
        "true",
        "1e9",
        "0",
        "undefined",
    ]
    .map(str::to_owned)
    .into();
    for sign in ' '..='~' {
        values.extend([
            format!("{sign}"),
            format!("a{sign}b"),
            format!("{sign}b"),
            format!("a{sign}"),
            format!("a{sign}{sign}b'"),
        ]);
    }
    // A generator with a fixed start: a failure comes again.
    let signs = ['\'', '"', '\\', '$', '{', '}', '#', '\n', ' ', 'a', 'n', '`', '=', '!', '%', ':', ';', 'ü'];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |most: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(most).unwrap()).unwrap()
    };
    for _ in 0..600 {
        let length = 1 + next(8);
        values.push((0..length).map(|_| signs[next(signs.len())]).collect());
    }
    values.push("long ".repeat(1_500));
    values
}

/// The corpus in one form: the files, and the values of those that are not refused.
struct Written {
    folder: tempfile::TempDir,
    values: Vec<String>,
    refused: Vec<String>,
}

impl Written {
    fn all(format: Format) -> Self {
        let mut all = Self { folder: tempfile::tempdir().unwrap(), values: Vec::new(), refused: Vec::new() };
        for value in corpus() {
            match written(format, &value) {
                Ok(text) => {
                    std::fs::write(all.file(all.values.len()), text).unwrap();
                    all.values.push(value);
                }
                Err(error) => {
                    let told = error.to_string();
                    let shows_it = value.len() > 5 && told.contains(&value);
                    assert!(matches!(error, AgentError::Format { .. }) && !shows_it, "{value:?}: {told}");
                    all.refused.push(value);
                }
            }
        }
        all
    }

    fn file(&self, number: usize) -> PathBuf {
        self.folder.path().join(number.to_string())
    }

    fn names(&self) -> Vec<String> {
        (0..self.values.len()).map(|number| self.file(number).display().to_string()).collect()
    }

    /// What a program prints for all files, a zero byte after each value.
    fn read_by(&self, reader: &str, command: &mut Command) {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut stdin, names) = (child.stdin.take().unwrap(), self.names().join("\n") + "\n");
        let writer = std::thread::spawn(move || stdin.write_all(names.as_bytes()));
        let output = child.wait_with_output().unwrap();
        let _ = writer.join().unwrap();
        assert!(output.status.success(), "{reader}: {}", output.status);
        let read: Vec<String> = output
            .stdout
            .strip_suffix(b"\0")
            .unwrap_or_default()
            .split(|byte| *byte == 0)
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .collect();
        self.are(reader, &read);
    }

    fn are(&self, reader: &str, read: &[String]) {
        let different: Vec<String> = self
            .values
            .iter()
            .zip(read)
            .filter(|(meant, read)| meant != read)
            .map(|(meant, read)| format!("{meant:?} is {read:?}"))
            .collect();
        assert!(
            different.is_empty(),
            "{reader} reads {} values differently:\n{}",
            different.len(),
            different.join("\n")
        );
        assert_eq!(read.len(), self.values.len(), "{reader}");
    }
}

/// A program by its variable, which `cargo xtask test` sets, or by its name where the machine has one.
fn program(variable: &str, name: &str, what: &str) -> Option<String> {
    let found = std::env::var(variable).ok().filter(|program| !program.is_empty()).or_else(|| {
        let works = Command::new(name)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        works.is_ok_and(|status| status.success()).then(|| name.to_owned())
    });
    if found.is_none() {
        left_out(what);
    }
    found
}

fn left_out(what: &str) {
    // Not captured by the test harness, unlike `eprintln!`.
    let line = format!("NOT run: {what} as the judge of what the agent writes: it is not on this machine\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn shells(all: &Written) {
    const SCRIPT: &str =
        r#"while IFS= read -r file; do unset DB_PASSWORD; . "$file"; printf '%s\0' "${DB_PASSWORD-absent}"; done"#;
    for shell in ["sh", "bash", "dash"] {
        let works = Command::new(shell).args(["-c", "true"]).status().is_ok_and(|status| status.success());
        if works {
            all.read_by(shell, Command::new(shell).args(["-c", SCRIPT]));
        } else {
            left_out(shell);
        }
    }
}

/// The function by which systemd reads `EnvironmentFile=`, in its own library.
fn systemd(all: &Written) {
    const SCRIPT: &str = r#"
import ctypes, sys
load = ctypes.CDLL(sys.argv[1]).load_env_file
load.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
for name in sys.stdin.read().splitlines():
    found = ctypes.POINTER(ctypes.c_char_p)()
    if load(None, name.encode(), ctypes.byref(found)) < 0:
        sys.exit(name)
    value, number = b"\x01absent", 0
    while found and found[number] is not None:
        key, rest = found[number].split(b"=", 1)
        # What systemd does with what it has read: it keeps what `env_assignment_is_valid` takes.
        if key == b"DB_PASSWORD":
            value = rest
        number += 1
    sys.stdout.buffer.write(value + b"\0")
"#;
    let folders =
        ["/usr/lib/systemd", "/lib/systemd", "/usr/lib/x86_64-linux-gnu/systemd", "/usr/lib/aarch64-linux-gnu/systemd"];
    let libraries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let library = libraries.map(|entry| entry.path()).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("libsystemd-shared-") && name.ends_with(".so")
    });
    let Some(library) = library else { return left_out("systemd") };
    if let Some(python) = program("JIT_TEST_PYTHON", "python3", "systemd by way of Python") {
        all.read_by("systemd", Command::new(python).args(["-c", SCRIPT]).arg(library));
    }
}

fn node_dotenv(all: &Written) {
    const SCRIPT: &str = r#"
const fs = require('fs'), dotenv = require('dotenv');
for (const name of fs.readFileSync(0, 'utf8').split('\n').filter(Boolean)) {
  const value = dotenv.parse(fs.readFileSync(name))['DB_PASSWORD'];
  fs.writeSync(1, (value === undefined ? '\u0001absent' : value) + '\0');
}
"#;
    let Ok(modules) = std::env::var("JIT_TEST_DOTENV_NODE_PATH") else { return left_out("dotenv of Node.js") };
    if let Some(node) = program("JIT_TEST_NODE", "node", "dotenv of Node.js") {
        all.read_by("dotenv of Node.js", Command::new(node).args(["-e", SCRIPT]).env("NODE_PATH", modules));
    }
}

fn python_dotenv(all: &Written) {
    const SCRIPT: &str = r#"
import dotenv, sys
for name in sys.stdin.read().splitlines():
    value = dotenv.dotenv_values(name).get("DB_PASSWORD")
    sys.stdout.buffer.write((chr(1) + "absent" if value is None else value).encode() + b"\0")
"#;
    let Ok(packages) = std::env::var("JIT_TEST_DOTENV_PYTHON_PATH") else { return left_out("python-dotenv") };
    if let Some(python) = program("JIT_TEST_PYTHON", "python3", "python-dotenv") {
        all.read_by("python-dotenv", Command::new(python).args(["-c", SCRIPT]).env("PYTHONPATH", packages));
    }
}

/// docker's own command, with a daemon of ours that writes down what it was asked to make.
fn docker(all: &Written) {
    let Some(docker) = program("JIT_TEST_DOCKER", "docker", "docker") else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("tcp://{}", listener.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        for stream in listener.incoming() {
            if let Some(body) = answered(stream.unwrap()) {
                return body;
            }
        }
        String::new()
    });
    let mut command = Command::new(docker);
    command
        .args(["create", "--pull", "never"])
        .env("DOCKER_HOST", host)
        .env_remove("DOCKER_CONTEXT")
        .env_remove("DOCKER_TLS_VERIFY");
    for name in all.names() {
        command.args(["--env-file", &name]);
    }
    let output = command.arg("image").stdin(Stdio::null()).output().unwrap();
    if asked.is_finished() {
        let body: serde_json::Value = serde_json::from_str(&asked.join().unwrap()).unwrap();
        let variables = body["Env"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
        let read: Vec<String> =
            variables.filter_map(|line| line.strip_prefix("DB_PASSWORD=")).map(str::to_owned).collect();
        all.are("docker", &read);
    } else {
        panic!("docker asked for nothing: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Answers requests of one connection; the body of the one that makes a container.
fn answered(mut stream: TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return None;
            }
        }
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).unwrap();
        let create = head.contains("/containers/create");
        let (status, text) =
            if create { ("404 Not Found", r#"{"message":"no such image"}"#) } else { ("200 OK", "OK") };
        let text = if head.starts_with("HEAD") { "" } else { text };
        let _ = write!(
            stream,
            "HTTP/1.1 {status}\r\nApi-Version: 1.43\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        );
        if create {
            return Some(String::from_utf8(body).unwrap());
        }
    }
}

#[test]
fn env_is_read_alike_by_all_its_readers() {
    let all = Written::all(Format::Env);
    shells(&all);
    systemd(&all);
    node_dotenv(&all);
    python_dotenv(&all);
    // It is worth having: single signs are no reason to refuse, wherever they are, but for a backslash at the end.
    let refused: Vec<&String> =
        all.refused.iter().filter(|value| value.chars().count() <= 3 && !value.contains('\\')).collect();
    let reason = |value: &str| {
        value.contains("${")
            || value.contains('\'')
            || value.chars().any(char::is_control)
            || value.contains(['\u{ffff}', '\u{fdd0}'])
    };
    assert!(refused.iter().all(|value| reason(value)), "{refused:?}");
    assert!(all.values.iter().any(|value| value == "it's") && all.refused.iter().any(|value| value == "it's \"it\""));
}

#[test]
fn env_sh_holds_everything() {
    let all = Written::all(Format::EnvSh);
    assert_eq!(all.refused, Vec::<String>::new());
    shells(&all);
}

#[test]
fn env_systemd_holds_all_that_systemd_takes() {
    let all = Written::all(Format::EnvSystemd);
    let takes = |value: &String| {
        !value.chars().any(|sign| {
            (sign.is_ascii_control() && !matches!(sign, '\t' | '\n')) || matches!(sign, '\u{ffff}' | '\u{fdd0}')
        })
    };
    assert!(!all.refused.iter().any(takes), "{:?}", all.refused);
    systemd(&all);
    // The same file in a shell is the same.
    shells(&all);
}

#[test]
fn dotenv_is_read_alike_by_node_and_python() {
    let all = Written::all(Format::Dotenv);
    node_dotenv(&all);
    python_dotenv(&all);
    for value in ["it's", "it's \"it\"", "a\\", "a\\\\b", "\\n", "a\nb", "$X", "`id`"] {
        assert!(all.values.iter().any(|held| held == value), "{value:?} is refused");
    }
}

#[test]
fn docker_env_holds_every_line() {
    let all = Written::all(Format::DockerEnv);
    assert!(all.refused.iter().all(|value| value.contains(['\n', '\r'])), "{:?}", all.refused);
    docker(&all);
}

/// A line that this program prints is `--password=VALUE`, to the next option of the file.
#[test]
fn mysqls_programs_read_their_option_file() {
    let all = Written::all(Format::MyCnf);
    let readers: Vec<String> = std::env::var("JIT_TEST_MY_PRINT_DEFAULTS")
        .map(|programs| programs.split(':').filter(|program| !program.is_empty()).map(str::to_owned).collect())
        .unwrap_or_default();
    if readers.is_empty() {
        left_out("my_print_defaults of MySQL and MariaDB");
    }
    for reader in readers {
        let read: Vec<String> = all
            .names()
            .iter()
            .map(|name| {
                let mut command = Command::new(&reader);
                command.arg(format!("--defaults-file={name}"));
                // MySQL's hides passwords otherwise; MariaDB's does not know the option.
                if reader.contains("mysql") {
                    command.arg("--show");
                }
                let output = command.arg("client").output().unwrap();
                assert!(output.status.success(), "{reader}: {}", String::from_utf8_lossy(&output.stderr));
                let text = String::from_utf8(output.stdout).unwrap();
                let after = text.split_once("\n--password=").map_or(ABSENT, |(_, after)| after);
                after.split_once("\n--host=").map_or(ABSENT, |(value, _)| value).to_owned()
            })
            .collect();
        all.are(&reader, &read);
    }
    assert!(all.refused.iter().all(|value| value.len() > 4_000), "{:?}", all.refused);
}

#[test]
fn java_reads_its_properties() {
    const JUDGE: &str = r#"
import java.io.*;
import java.nio.charset.StandardCharsets;
import java.util.Properties;

class Judge {
  public static void main(String[] arguments) throws IOException {
    BufferedReader names = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    PrintStream out = new PrintStream(new BufferedOutputStream(new FileOutputStream(FileDescriptor.out)), false, "UTF-8");
    for (String name; (name = names.readLine()) != null; ) {
      Properties properties = new Properties();
      try (InputStream file = new FileInputStream(name)) {
        properties.load(file);
      }
      out.print(properties.getProperty("DB_password", "\u0001absent"));
      out.print('\0');
    }
    out.flush();
  }
}
"#;
    let all = Written::all(Format::Properties);
    assert_eq!(all.refused, Vec::<String>::new());
    let (java, javac) =
        (program("JIT_TEST_JAVA", "java", "Java"), program("JIT_TEST_JAVAC", "javac", "Java's compiler"));
    let (Some(java), Some(javac)) = (java, javac) else { return };
    let classes = tempfile::tempdir().unwrap();
    let source = classes.path().join("Judge.java");
    std::fs::write(&source, JUDGE).unwrap();
    let compiled = Command::new(javac).arg("-d").arg(classes.path()).arg(&source).status().unwrap();
    assert!(compiled.success());
    all.read_by("Java", Command::new(java).arg("-cp").arg(classes.path()).arg("Judge"));
}

/// libpq in `psql`, with a server of ours that asks for the password in clear.
#[test]
fn libpq_reads_its_password_file() {
    let all = Written::all(Format::Pgpass);
    assert!(all.refused.iter().all(|value| value.contains(['\n', '\r'])), "{:?}", all.refused);
    let Some(psql) = program("JIT_TEST_PSQL", "psql", "psql") else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // The form's host and port are the connection's; what differs here is only where it is.
    let mut numbers: Vec<usize> = (0..all.values.len()).collect();
    // One process for each: all with a sign that means something in this file, and some of the others.
    let special = |value: &str| value.chars().count() <= 3 && value.contains([':', '\\', '*', '#']);
    numbers.retain(|number| special(&all.values[*number]) || number % 16 == 0);
    for number in numbers {
        let line = std::fs::read_to_string(all.file(number)).unwrap();
        let here = line.replacen("db.example.com:5432:", &format!("127.0.0.1:{port}:"), 1);
        let file = all.folder.path().join("pgpass");
        crate::output::Draft::open(&file, crate::output::Mode::default(), None)
            .unwrap()
            .commit(here.as_bytes())
            .unwrap();
        let mut client = Command::new(&psql)
            .args(["-w", "-c", "SELECT 1"])
            .arg(format!("host=127.0.0.1 port={port} user=v-app dbname=inventory sslmode=disable gssencmode=disable"))
            .env("PGPASSFILE", &file)
            .env_remove("PGPASSWORD")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (stream, _) = listener.accept().unwrap();
        let read = password(stream);
        client.wait().unwrap();
        assert_eq!(read.as_deref(), Some(all.values[number].as_str()), "{here:?}");
    }
}

/// The password that a client of PostgreSQL sends when it is asked for it.
fn password(mut stream: TcpStream) -> Option<String> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut startup = vec![0; usize::try_from(u32::from_be_bytes(length)).ok()?.checked_sub(4)?];
    stream.read_exact(&mut startup).ok()?;
    // AuthenticationCleartextPassword.
    stream.write_all(&[b'R', 0, 0, 0, 8, 0, 0, 0, 3]).ok()?;
    let mut kind = [0; 1];
    stream.read_exact(&mut kind).ok()?;
    stream.read_exact(&mut length).ok()?;
    let mut text = vec![0; usize::try_from(u32::from_be_bytes(length)).ok()?.checked_sub(4)?];
    stream.read_exact(&mut text).ok()?;
    text.pop();
    (kind == [b'p']).then(|| String::from_utf8(text).ok())?
}
