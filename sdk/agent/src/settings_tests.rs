#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::format::tests::credential;

fn args(target: Option<&str>, out: Option<&Path>) -> CredentialArgs {
    CredentialArgs { target: target.map(Into::into), out: out.map(Into::into), ..CredentialArgs::default() }
}

fn parsed(text: &str) -> Result<Vec<Entry>, String> {
    let config: ConfigFile = toml::from_str(text).map_err(|error| error.to_string())?;
    config.entries(&args(None, None), &[], false).map_err(|error| error.to_string())
}

#[test]
fn several_credentials_come_from_a_file() {
    let entries = parsed(
        r#"
broker = "https://broker:8700"
token_command = ["print-token", "--for", "jit"]
[[credentials]]
target = "inventory_db"
out = "/creds/db.json"
mode = "0640"
owner = "1000:1000"
on_rotate = ["signal:HUP:pidfile=/run/app.pid", "exec:true"]
[[credentials]]
target = "shop_db"
role = "reader"
ttl = "30m"
prefix = "SHOP_"
new_account = true
metadata = { build = "1234" }
"#,
    )
    .unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(
        (entries[0].form.format, entries[0].form.mode, entries[0].on_rotate.len()),
        (Format::Json, Mode(0o640), 2)
    );
    assert_eq!((entries[1].form.prefix.as_str(), entries[1].rotation), ("SHOP_", Rotation::NewAccount));
    assert_eq!(entries[1].request, Request::new("shop_db").role("reader").ttl("30m").metadata("build", "1234"));
}

#[test]
fn mistakes_in_a_file_are_told() {
    let one = |line: &str| parsed(&format!("[[credentials]]\ntarget = \"t\"\n{line}\n")).unwrap_err();
    for (line, told) in [
        ("rol = \"x\"", "unknown field `rol`"),
        ("mode = \"0644\"", "everybody"),
        ("owner = \"root\"", "as numbers"),
        ("on_rotate = [\"HUP\"]", "write signal:HUP"),
        ("format = \"xml\"", "unknown variant `xml`"),
        ("format = \"template\"", "needs a template file"),
        ("template = \"/no/such.tmpl\"", "/no/such.tmpl"),
        ("prefix = \"1-\"", "begin with no digit"),
        ("prefix = \"app.\"", "has a dot"),
        ("out = \"/\"", "names no file"),
    ] {
        assert!(one(line).contains(told), "{line}: {}", one(line));
    }
    let twice = "[[credentials]]\ntarget = \"a\"\nout = \"/x\"\n[[credentials]]\ntarget = \"b\"\nout = \"/x\"\n";
    assert!(parsed(twice).unwrap_err().contains("two credentials"));
    assert!(parsed("").unwrap_err().contains("which credential?"));
}

#[test]
fn the_form_follows_the_files_name_unless_it_is_said() {
    let of = |name: &str| single(&args(Some("t"), Some(Path::new(name))), &[], false).unwrap().form;
    for (name, expected) in [
        ("/c/db.env", Format::Env),
        ("/c/db", Format::Env),
        ("/c/db.json", Format::Json),
        ("/c/app.properties", Format::Properties),
        ("/c/my.cnf", Format::MyCnf),
        ("/c/.pgpass", Format::Pgpass),
        ("/c/db.uri", Format::Uri),
    ] {
        assert_eq!(of(name).format, expected, "{name}");
    }
    assert_eq!((of("/c/a.properties").prefix.as_str(), of("/c/db.env").prefix.as_str()), ("", "DB_"));
    let said = CredentialArgs { format: Some(Format::Uri), ..args(Some("t"), Some(Path::new("/c/db.json"))) };
    assert_eq!(single(&said, &[], false).unwrap().form.format, Format::Uri);
}

#[test]
fn renew_takes_from_the_state_what_it_is_not_told() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("db.env");
    let nothing = single(&args(None, Some(&out)), &[], true).unwrap_err().to_string();
    assert!(nothing.contains("fetch --target TARGET --out") && nothing.contains(".db.env.jit-agent.json"), "{nothing}");

    let form = Form { format: Format::Json, prefix: "X_".into(), mode: Mode(0o600), owner: None, template: None };
    let request = Request::new("inventory_db").role("app_read_only").ttl("1h").metadata("a", "b");
    State::new(request.clone(), form.clone(), credential("v", "x").lease).save(&out).unwrap();
    let taken = single(&args(None, Some(&out)), &[], true).unwrap();
    assert_eq!((&taken.request, &taken.form), (&request, &form));

    let other = CredentialArgs { ttl: Some("5m".into()), format: Some(Format::Env), ..args(None, Some(&out)) };
    let other = single(&other, &[], true).unwrap();
    assert_eq!((other.request.ttl, other.form.format, other.form.mode), (Some("5m".into()), Format::Env, Mode(0o600)));
    let stranger = single(&args(Some("shop_db"), Some(&out)), &[], true).unwrap();
    assert_eq!((stranger.request, stranger.form.mode), (Request::new("shop_db"), Mode::default()));
}

#[test]
fn what_decides_over_files_and_rights_is_never_taken_from_the_state() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("db.env");
    let plain = Form { format: Format::Env, prefix: "DB_".into(), mode: Mode(0o600), owner: None, template: None };
    let owner: Owner = "1000:1000".parse().unwrap();
    // As somebody would write it who wants a file of the agent's rendered where they can read it.
    let template = Some(folder.path().join("secret"));
    std::fs::write(folder.path().join("secret"), "not theirs").unwrap();
    for (form, told) in [
        (Form { format: Format::Template, template, ..plain.clone() }, "--template"),
        (Form { mode: Mode(0o640), ..plain.clone() }, "--mode 0640"),
        (Form { owner: Some(owner), ..plain.clone() }, "--owner 1000:1000"),
    ] {
        State::new(Request::new("inventory_db"), form.clone(), credential("v", "x").lease).save(&out).unwrap();
        let error = single(&args(None, Some(&out)), &[], true).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
        let same = CredentialArgs {
            mode: Some(form.mode),
            owner: form.owner,
            template: form.template.clone(),
            ..args(None, Some(&out))
        };
        assert_eq!(single(&same, &[], true).unwrap().form, form, "the command line says the same");
    }
}

#[test]
fn tokens_come_from_where_it_is_said_first() {
    let file: ConfigFile = toml::from_str("token_command = [\"a\", \"b c\"]").unwrap();
    assert_eq!(file.token(&BrokerArgs::default()), TokenSource::command(["a", "b c"]));
    let args = BrokerArgs { token_env: Some("T".into()), ..BrokerArgs::default() };
    assert_eq!(file.token(&args), TokenSource::env("T"));
    let socket = BrokerArgs { spiffe_socket: Some("/s".into()), ..BrokerArgs::default() };
    assert_eq!(ConfigFile::default().token(&socket), TokenSource::spiffe("/s", "jit-broker"));
    let told = ConfigFile::default().client(&BrokerArgs::default(), None).err().unwrap().to_string();
    assert!(told.contains("JIT_BROKER_URL"), "{told}");
}
