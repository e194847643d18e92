//! deploy/: what cannot be run here is held against validators, and each of them against mistakes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use jit_tests::{ingredients, surroundings};

/// What `systemd-analyze security` may say at most, times ten; 0 is the least exposed, 100 the most.
const EXPOSURE: &str = "--threshold=15";
/// Targets that every unit of systemd's stands on, for a root in which nothing else is.
const TARGETS: [&str; 5] = ["sysinit", "basic", "shutdown", "network-online", "multi-user"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The check of manifests, with arguments.
fn manifests(arguments: &[&str], folder: &Path) -> Output {
    Command::new(surroundings("JIT_TEST_PYTHON"))
        .arg(root().join("tests/deploy/manifests.py"))
        .args(arguments)
        .arg(folder)
        .env("PYTHONPATH", surroundings("JIT_TEST_CHECKS_PATH"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap()
}

/// Where the manifests of one broker are, and those of three.
const VARIANTS: [&str; 2] = ["", "replicas"];

/// A copy of the manifests of a variant, with changes: file, what, by what.
fn changed(variant: &str, changes: &[(&str, &str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from = root().join("deploy/kubernetes");
    fs::copy(from.join("00-namespace.yaml"), folder.path().join("00-namespace.yaml")).unwrap();
    for name in ["10-configuration.yaml", "20-broker.yaml", "30-network-policy.yaml"] {
        fs::copy(from.join(variant).join(name), folder.path().join(name)).unwrap();
    }
    fs::copy(from.join("application/payment-service.yaml"), folder.path().join("payment-service.yaml")).unwrap();
    for (file, what, by) in changes {
        let path = folder.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(what), "{file} has no `{what}`");
        fs::write(path, text.replace(what, by)).unwrap();
    }
    folder
}

#[test]
fn kubernetes_knows_every_field_of_the_manifests_and_they_are_as_strict_as_we_say() {
    if !ingredients::is_here("checks", "the check of the Kubernetes manifests") {
        return;
    }
    // Each variant by itself: what it names must not be the other's. And every file, also one that is new.
    for variant in VARIANTS {
        let checked = manifests(&[], changed(variant, &[]).path());
        assert!(checked.status.success(), "{}", text_of(&checked));
    }
    let checked = manifests(&[], &root().join("deploy/kubernetes"));
    assert!(checked.status.success(), "{}", text_of(&checked));
}

/// The check finds these problems in a variant with these changes.
fn finds(variant: &str, changes: &[(&str, &str, &str)], expected: &[&str]) {
    let checked = manifests(&[], changed(variant, changes).path());
    let said = text_of(&checked);
    assert_eq!(checked.status.code(), Some(1), "{said}");
    for line in expected {
        assert!(said.contains(line), "`{line}` is not in:\n{said}");
    }
}

#[test]
fn the_check_of_the_manifests_finds_what_would_take_all_three_brokers_away() {
    if !ingredients::is_here("checks", "the check of the check of the manifests of three brokers") {
        return;
    }
    let finds = |changes: &[(&str, &str, &str)], expected: &[&str]| finds("replicas", changes, expected);
    let broker = "20-broker.yaml";
    finds(
        &[
            (broker, "maxUnavailable: 0", "maxUnavailable: 1"),
            (broker, "minAvailable: 2", "minAvailable: 3"),
            (broker, "topologyKey: kubernetes.io/hostname", "topologyKey: kubernetes.io/arch"),
            (broker, "emptyDir: { medium: Memory, sizeLimit: 96Mi }", "persistentVolumeClaim: { claimName: compiled }"),
            (broker, "{ name: jit-broker-keys, key: audit.key }", "{ name: another, key: audit.key }"),
        ],
        &[
            "an update takes a pod away before the next one is ready",
            "the PodDisruptionBudget keeps 3 of 3 pods",
            "all pods may be on one node",
            "volume compiled: the pods share it",
            "Secret jit-broker/another is not there",
        ],
    );
    let selector = "  minAvailable: 2\n  selector:\n    matchLabels:\n      app.kubernetes.io/name: ";
    let readiness = "          readinessProbe:\n            httpGet: { path: /readyz, port: operators }\n            \
                     periodSeconds: 5\n            timeoutSeconds: 3\n";
    finds(
        &[
            (broker, selector, &format!("{selector}another-")),
            (broker, readiness, ""),
            (broker, "targetPort: https", "targetPort: http"),
            ("30-network-policy.yaml", "port: operators", "port: metrics"),
        ],
        &[
            "PodDisruptionBudget jit-broker: its selector fits no pod",
            "not one PodDisruptionBudget, but none",
            "no readinessProbe",
            "Service jit-broker: the pods have no port http",
            "NetworkPolicy jit-broker: the pods have no port metrics",
        ],
    );
}

#[test]
fn the_check_of_the_manifests_finds_each_kind_of_mistake() {
    if !ingredients::is_here("checks", "the check of the check of the Kubernetes manifests") {
        return;
    }
    let finds = |changes: &[(&str, &str, &str)], expected: &[&str]| finds("", changes, expected);
    // What the API would refuse.
    finds(
        &[
            ("20-broker.yaml", "terminationGracePeriodSeconds", "terminationGraceSeconds"),
            ("20-broker.yaml", "replicas: 1", "replicas: \"1\""),
            (
                "20-broker.yaml",
                "            - { name: run, mountPath: /run/jit-broker }",
                "            - { name: run }",
            ),
            ("30-network-policy.yaml", "networking.k8s.io/v1", "networking.k8s.io/v2"),
        ],
        &[
            "terminationGraceSeconds: V1PodSpec has no such field",
            "replicas: '1' is not of type int",
            "Invalid value for `mount_path`",
            "networking.k8s.io/v2 has no NetworkPolicy",
        ],
    );
    finds(
        &[("00-namespace.yaml", "kind: Namespace", "kind: Namespace\nkind: Secret")],
        &["the key 'kind' stands twice"],
    );
    // What the API would take, and this project does not.
    finds(
        &[
            ("20-broker.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
            ("20-broker.yaml", "runAsNonRoot: true", "runAsNonRoot: false"),
            ("20-broker.yaml", "secretName: jit-broker-tls", "secretName: another"),
            ("payment-service.yaml", "medium: Memory, ", ""),
            ("payment-service.yaml", "capabilities:\n", "capabilities:\n              add: [NET_ADMIN]\n"),
        ],
        &[
            "the root file system can be written",
            "the pod may run as root",
            "Secret jit-broker/another is not there",
            "emptyDir without medium: Memory",
            "has privileges",
        ],
    );
}

/// What `jit-broker config check` says of a configuration, with the files that it names put below a
/// folder.
fn config_check(text: &str, plugins: &str, files: &[&str], env: &[(&str, String)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let authority = rcgen::generate_simple_self_signed(["kubernetes.default.svc".to_owned()]).unwrap();
    let mut text = text.replace(plugins, &surroundings("JIT_TEST_PLUGINS"));
    for (index, file) in files.iter().enumerate() {
        assert!(text.contains(file), "the configuration does not name {file}");
        let here = folder.path().join(format!("file-{index}"));
        if file.ends_with("audit.key") {
            let made =
                Command::new(surroundings("JIT_TEST_BROKER")).args(["audit", "key"]).arg(&here).output().unwrap();
            assert!(made.status.success(), "{}", text_of(&made));
        } else if file.ends_with("tls.key") {
            fs::write(&here, authority.signing_key.serialize_pem()).unwrap();
        } else {
            fs::write(&here, authority.cert.pem()).unwrap();
        }
        fs::set_permissions(&here, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        text = text.replace(file, &here.display().to_string());
    }
    let keep = |line: &&str| !line.starts_with("cache_dir");
    let mut text: String = text.lines().filter(keep).map(|line| format!("{line}\n")).collect();
    // Compiled plugins lie beside the store.
    text = text.replace("/var/lib/jit-broker", &folder.path().display().to_string());
    let config = folder.path().join("broker.toml");
    fs::write(&config, text).unwrap();
    let broker = surroundings("JIT_TEST_BROKER");
    let env = env.iter().map(|(name, value)| (name, value));
    Command::new(broker).args(["config", "check", "--offline", "--config"]).arg(config).envs(env).output().unwrap()
}

/// The text of a key that the broker makes: `audit`, `store`.
fn made_key(command: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    let made = Command::new(surroundings("JIT_TEST_BROKER")).args([command, "key"]).arg(&file).output().unwrap();
    assert!(made.status.success(), "{}", text_of(&made));
    fs::read_to_string(file).unwrap()
}

/// The configuration in the ConfigMap of a variant.
fn configuration(variant: &str) -> String {
    let found = manifests(&["--value", "jit-broker/jit-broker/broker.toml"], changed(variant, &[]).path());
    assert!(found.status.success(), "{}", text_of(&found));
    String::from_utf8(found.stdout).unwrap()
}

/// Checks that the broker takes a configuration and warns of nothing.
fn is_good(checked: &Output) {
    let said = text_of(checked);
    assert!(
        checked.status.success() && said.contains("the configuration is good") && !said.contains("warning"),
        "{said}"
    );
}

#[test]
fn the_broker_takes_the_configuration_of_the_manifests() {
    if !ingredients::is_here("checks", "the check of the configuration in the Kubernetes manifests") {
        return;
    }
    let common = [
        "/etc/jit-broker-tls/tls.crt",
        "/etc/jit-broker-tls/tls.key",
        "/etc/jit-broker-secrets/inventory",
        "/etc/jit-broker-database/ca.crt",
        "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
        "/var/run/secrets/kubernetes.io/serviceaccount/token",
    ];
    let files = [&common[..], &["/var/lib/jit-broker/audit.key"]].concat();
    is_good(&config_check(&configuration(""), "/plugins", &files, &[]));
    // Three brokers have their keys from variables, and no folder of their own.
    let files = [&common[..], &["/etc/jit-broker-store/password", "/etc/jit-broker-store-ca/ca.crt"]].concat();
    let text = configuration("replicas");
    assert!(!text.contains("/var/lib"), "{text}");
    let keys = [("JIT_AUDIT_KEY", made_key("audit")), ("JIT_SEALING_KEY", made_key("store"))];
    is_good(&config_check(&text, "/plugins", &files, &keys));
    // The check can say no of each.
    for (name, _) in &keys {
        let wrong = keys.clone().map(|(key, value)| (key, if key == *name { "nonsense".to_owned() } else { value }));
        let checked = config_check(&text, "/plugins", &files, &wrong);
        assert_eq!(checked.status.code(), Some(3), "{name}: {}", text_of(&checked));
    }
}

#[test]
fn the_broker_takes_the_configuration_of_the_unit() {
    let text = fs::read_to_string(root().join("deploy/systemd/broker.toml")).unwrap();
    let unit = fs::read_to_string(root().join("deploy/systemd/jit-broker.service")).unwrap();
    for credential in ["audit.key", "tls.key", "inventory"] {
        assert!(unit.contains(&format!("LoadCredential={credential}:")), "the unit loads no {credential}");
    }
    let files = [
        "/etc/jit-broker/tls/cert.pem",
        "/run/credentials/jit-broker.service/tls.key",
        "/run/credentials/jit-broker.service/audit.key",
        "/run/credentials/jit-broker.service/inventory",
        "/etc/jit-broker/database-ca.pem",
    ];
    is_good(&config_check(&text, "/usr/lib/jit-broker/plugins", &files, &[]));
    // The check itself can say no.
    let checked =
        config_check(&text.replace("default_role", "default_rôle"), "/usr/lib/jit-broker/plugins", &files, &[]);
    assert_eq!(checked.status.code(), Some(3), "{}", text_of(&checked));
}

/// All units in deploy/systemd.
fn units() -> Vec<PathBuf> {
    let folder = fs::read_dir(root().join("deploy/systemd")).unwrap().flatten().map(|entry| entry.path());
    folder.filter(|path| path.extension().is_some_and(|extension| extension == "service")).collect()
}

/// What systemd says of a unit in a root of its own, in which the programs that it starts are.
fn verify(name: &str, text: &str) -> String {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str, mode: u32| {
        let path = root.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    for target in TARGETS {
        write(&format!("usr/lib/systemd/system/{target}.target"), "[Unit]\nDescription=a target\n", 0o644);
    }
    for program in ["/usr/bin/jit-broker", "/usr/bin/jit-agent", "/bin/kill"] {
        write(program, "#!/bin/sh\n", 0o755);
    }
    write(&format!("etc/systemd/system/{name}"), text, 0o644);
    let mut command = Command::new(surroundings("JIT_TEST_SYSTEMD_ANALYZE"));
    let verified = command.arg("verify").arg(format!("--root={}", root.path().display())).arg(name).output().unwrap();
    // Of an unknown key it only warns, and ends with success.
    let said = text_of(&verified);
    assert!(verified.status.success() || !said.is_empty());
    said
}

#[test]
fn systemd_takes_the_units_and_finds_them_hardened() {
    if !ingredients::is_here("systemd", "the check of the systemd units") {
        return;
    }
    let units = units();
    assert_eq!(units.len(), 2, "{units:?}");
    for unit in units {
        let name = unit.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&unit).unwrap();
        assert_eq!(verify(name, &text), "", "{name}");
        assert_ne!(verify(name, &text.replace("ProtectHome=", "ProtectHoem=")), "", "a mistake is found");
        assert_ne!(verify(name, &text.replace("ExecStart=/usr/bin/", "ExecStart=/usr/local/bin/")), "");
        let exposure = |text: &str| {
            let folder = tempfile::tempdir().unwrap();
            let copy = folder.path().join(name);
            fs::write(&copy, text).unwrap();
            let mut command = Command::new(surroundings("JIT_TEST_SYSTEMD_ANALYZE"));
            command.args(["security", "--no-pager", "--offline=true", EXPOSURE]).arg(copy).output().unwrap()
        };
        let judged = exposure(&text);
        assert!(judged.status.success(), "{name}: {}", text_of(&judged));
        let weaker = text.replace("SystemCallFilter=", "#SystemCallFilter=").replace("PrivateUsers=yes", "");
        assert!(!exposure(&weaker).status.success(), "{name}: a weaker unit passes too");
    }
}

#[test]
fn the_image_is_static_and_not_root() {
    let folder = root().join("deploy/docker");
    let text = fs::read_to_string(folder.join("Dockerfile")).unwrap();
    let ignored = fs::read_to_string(folder.join("Dockerfile.dockerignore")).unwrap();
    assert!(ignored.lines().any(|line| line == "*"), "what is not named stays outside");
    let stages: Vec<&str> = text.split("\nFROM ").skip(1).collect();
    let (build, images) = stages.split_first().unwrap();
    // What the build copies is there, and let through.
    let sources: Vec<&str> = build
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .flat_map(|line| line.split_whitespace().rev().skip(1).collect::<Vec<_>>())
        .collect();
    assert!(sources.len() > 5, "{sources:?}");
    for source in sources {
        assert!(root().join(source).exists(), "{source} is not there to be copied");
        assert!(ignored.lines().any(|line| line == format!("!{source}")), "{source} is ignored");
    }
    assert_eq!(images.len(), 2);
    for image in images {
        assert!(image.starts_with("scratch AS "), "{image}");
        let user = image.lines().rev().find_map(|line| line.strip_prefix("USER ")).unwrap();
        let numbers: Vec<u32> = user.split(':').map(|number| number.parse().unwrap()).collect();
        assert!(numbers.len() == 2 && numbers.iter().all(|number| *number > 0), "USER {user}");
        assert!(image.lines().any(|line| line.starts_with("ENTRYPOINT [\"/jit-")), "{image}");
    }
    // The guests of the tests, some of them hostile, are in no image.
    let mut orders = build.lines().filter(|line| !line.starts_with('#'));
    assert!(
        build.contains("find plugins -mindepth 1 -maxdepth 1 -type d") && orders.all(|line| !line.contains("guests"))
    );
}

#[test]
fn hadolint_finds_nothing_in_the_dockerfile() {
    if !ingredients::is_here("checks", "hadolint's check of the Dockerfile") {
        return;
    }
    let hadolint = Path::new(&surroundings("JIT_TEST_CHECKS_PATH")).join("bin/hadolint");
    let lint = |file: &Path| Command::new(&hadolint).arg("--no-color").arg(file).output().unwrap();
    let file = root().join("deploy/docker/Dockerfile");
    let linted = lint(&file);
    assert!(linted.status.success() && linted.stdout.is_empty(), "{}", text_of(&linted));
    // It can say no.
    let folder = tempfile::tempdir().unwrap();
    let worse = folder.path().join("Dockerfile");
    fs::write(&worse, fs::read_to_string(&file).unwrap().replace("USER 65532:65532", "USER root")).unwrap();
    assert!(text_of(&lint(&worse)).contains("DL3002"));
}
