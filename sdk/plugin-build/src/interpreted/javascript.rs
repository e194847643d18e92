//! JavaScript: componentize-js of npm, with all that it needs, pinned by digest in a lock file.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{
    COMPONENT_DEADLINE, INSTALL_DEADLINE, Tool, Work,
    program::{Wanted, isolated},
    sources::ENTRY,
    write,
};
use crate::{Error, Progress, cache, embedded, host_contract, process::Run, project::Project};

/// Where the tool's own description lies in the source tree.
const TOOLCHAIN: &str = "sdk/js/toolchain";

const NODE: Wanted = Wanted {
    program: "node",
    minimum: (20, 0),
    fix: "install Node.js 20 or newer, from nodejs.org or your distribution",
};
const NPM: Wanted = Wanted {
    program: "npm",
    minimum: (9, 0),
    fix: "install npm 9 or newer; it comes with Node.js, on Debian as `npm`",
};

/// The folder into which npm installed it.
pub(super) struct ComponentizeJs(PathBuf);

impl Tool for ComponentizeJs {
    const ENDING: &'static str = "js";

    fn prepare(cache: &Path, progress: &dyn Progress) -> Result<Self, Error> {
        NODE.find()?;
        let mut digest = Sha256::new();
        for (_, text) in embedded::below(TOOLCHAIN) {
            digest.update(text);
        }
        let name = format!("languages/componentize-js-{}", hex::encode(&digest.finalize()[..8]));
        cache::install(cache, &name, INSTALL_DEADLINE, |folder| {
            NPM.find()?;
            progress.step("fetching componentize-js from npm (60 MB, once)");
            for (name, text) in embedded::below(TOOLCHAIN) {
                write(&folder.join(name), text)?;
            }
            let mut npm = isolated(NPM.program, folder);
            npm.current_dir(folder).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
            Run::new("`npm ci` for componentize-js", INSTALL_DEADLINE)
                .on_line(&|line| progress.detail(line))
                .output(&mut npm)
                .map(drop)
        })
        .map(Self)
    }

    fn inputs() -> Vec<&'static str> {
        std::iter::once("javascript").chain(embedded::below(TOOLCHAIN).map(|(_, text)| text)).collect()
    }

    fn entry(project: &Project) -> String {
        let contract = host_contract();
        let (component, asks_a_server, exports) = match project.world {
            "bare-context" => ("context", false, &["context"][..]),
            "context-plugin" => ("context", true, &["context"][..]),
            "http-driver" => ("driver", true, &["driver"][..]),
            _ => ("policy", false, &["policy", "usage"][..]),
        };
        let module = &project.module;
        // JSON texts are texts of JavaScript.
        let about = serde_json::json!({ "name": project.name, "version": project.version, "module": module });
        let mut entry = format!(
            "import {{ write }} from 'jit:plugin/log@{contract}';\n\
             import {{ exported }} from './jit-plugin/component/{component}.js';\n"
        );
        let mut http = "";
        if asks_a_server {
            entry += &format!(
                "import * as http from 'jit:plugin/http@{contract}';\n\
                 import * as session from 'jit:plugin/session@{contract}';\n\
                 import {{ hostHttp }} from './jit-plugin/component/http.js';\n"
            );
            http = ", hostHttp(http, session)";
        }
        entry +=
            &format!("import plugin from './{module}';\nconst made = exported(plugin, {{ write }}, {about}{http});\n");
        for export in exports {
            entry += &format!("export const {export} = made.{export};\n");
        }
        entry
    }

    fn componentize(&self, work: &Work, project: &Project, progress: &dyn Progress) -> Result<(), Error> {
        progress.step(&format!("making a component of {} with SpiderMonkey in it (about 20 s)", project.name));
        let asked = serde_json::json!({
            "source": work.sources.join(format!("{ENTRY}.js")),
            "wit": work.wit,
            "world": project.world,
            "out": work.out,
        });
        let mut node = isolated(NODE.program, &work.scratch);
        node.current_dir(&work.scratch).arg(self.0.join("componentize.mjs")).arg(asked.to_string());
        Run::new(format!("making a component of {}", project.name), COMPONENT_DEADLINE)
            .on_line(&|line| progress.detail(line))
            .output(&mut node)
            .map(drop)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_installed_is_pinned_by_digest() {
        let lock: serde_json::Value =
            serde_json::from_str(embedded::file("sdk/js/toolchain/package-lock.json")).unwrap();
        let packages = lock["packages"].as_object().unwrap();
        assert!(packages.len() > 10);
        for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
            assert!(package["integrity"].as_str().is_some_and(|digest| digest.starts_with("sha512-")), "{name}");
            // From whichever registry npm is set up with: the digest decides.
            assert_eq!(package["resolved"].as_str(), None, "{name}");
        }
    }
}
