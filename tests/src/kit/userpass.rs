//! OpenBao's own accounts, by name and password, for the drivers in Python and JavaScript that make them.

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::KitFixture;
use crate::random_name;
use crate::servers::OpenBao;

/// An auth mount of the suite's OpenBao, with something that its readers may read.
pub struct Mount {
    /// The server, as root.
    pub bao: OpenBao,
    /// Where it is mounted; also the name of the broker's policy.
    pub path: String,
}

impl Mount {
    /// Mounts one in the suite's server.
    ///
    /// # Errors
    /// When the server says no.
    pub async fn of_the_suite() -> Result<Self> {
        let mount = Self { bao: OpenBao::of_the_suite()?, path: format!("people_{}", random_name()) };
        let path = &mount.path;
        mount.bao.write(&format!("sys/auth/{path}"), &json!({"type": "userpass"})).await?;
        mount.bao.write(&format!("sys/mounts/kv_{path}"), &json!({"type": "kv"})).await?;
        for name in ["items", "others"] {
            mount.bao.write(&format!("kv_{path}/{name}"), &json!({"a": "1"})).await?;
        }
        let mounts = mount.bao.request(Method::GET, "sys/auth", &Value::Null).await?;
        let accessor = mounts.json[format!("{path}/")]["accessor"].as_str().context("no accessor")?.to_owned();
        mount
            .write_policy(
                &mount.reader(),
                &format!(
                    "path \"kv_{path}/items\" {{ capabilities = [\"read\"] }}\n\
                     path \"auth/{path}/users/{{{{identity.entity.aliases.{accessor}.name}}}}/password\" \
                     {{ capabilities = [\"update\"] }}"
                ),
            )
            .await?;
        mount
            .write_policy(
                path,
                &format!(
                    "path \"auth/{path}/users\" {{ capabilities = [\"list\"] }}\n\
                     path \"auth/{path}/users/*\" {{ capabilities = [\"create\", \"read\", \"update\", \"delete\"] }}\n\
                     path \"sys/leases/revoke-prefix/auth/{path}/login/*\" {{ capabilities = [\"update\", \"sudo\"] }}\n\
                     path \"sys/policies/acl/*\" {{ capabilities = [\"read\"] }}"
                ),
            )
            .await?;
        Ok(mount)
    }

    async fn write_policy(&self, name: &str, policy: &str) -> Result<()> {
        self.bao.write(&format!("sys/policies/acl/{name}"), &json!({"policy": policy})).await?;
        Ok(())
    }

    /// The policy that its readers get.
    #[must_use]
    pub fn reader(&self) -> String {
        format!("reader_{}", self.path)
    }

    /// A token with these policies.
    ///
    /// # Errors
    /// When the server says no.
    pub async fn token(&self, policies: &[&str]) -> Result<String> {
        let body = json!({"policies": policies, "period": "1h", "no_default_policy": true, "no_parent": true});
        let made = self.bao.write("auth/token/create", &body).await?;
        made["auth"]["client_token"].as_str().map(str::to_owned).context("no token")
    }

    /// A section of the configuration for a connection with that token.
    #[must_use]
    pub fn connection(&self, name: &str, token_file: &str) -> String {
        let ca = self.bao.authority().map(|ca| format!("ca = \"{}\"\n", ca.display())).unwrap_or_default();
        let url = self.bao.url();
        format!(
            "[connections.{name}]\nkind = \"http\"\nurl = \"{url}\"\n{ca}\
             secrets = {{ token = {{ file = \"{token_file}\" }} }}\n"
        )
    }

    /// Logs in; the token, or none when the server does not let the account in.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn log_in(&self, name: &str, password: &str) -> Result<Option<String>> {
        let path = format!("auth/{}/login/{name}", self.path);
        let reply = self.bao.with_token("").request(Method::POST, &path, &json!({"password": password})).await?;
        ensure!([200, 400, 403].contains(&reply.status), "status {}", reply.status);
        Ok(reply.json["auth"]["client_token"].as_str().map(str::to_owned))
    }

    /// Whether somebody with that token may read what readers may.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn reads(&self, token: &str) -> Result<bool> {
        let path = format!("kv_{}/items", self.path);
        let reply = self.bao.with_token(token).request(Method::GET, &path, &Value::Null).await?;
        ensure!([200, 403].contains(&reply.status), "status {}", reply.status);
        Ok(reply.status == 200)
    }

    /// The users that there are.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn users(&self) -> Result<Vec<String>> {
        let path = format!("auth/{}/users?list=true", self.path);
        let reply = self.bao.request(Method::GET, &path, &Value::Null).await?;
        ensure!([200, 404].contains(&reply.status), "status {}", reply.status);
        let names = reply.json["data"]["keys"].as_array().cloned().unwrap_or_default();
        Ok(names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
    }

    /// A fixture for it.
    ///
    /// # Errors
    /// When a server says no.
    pub async fn fixture(&self) -> Result<KitFixture> {
        let fixture = KitFixture::new()?;
        fixture.secret("token", &self.token(&[&self.path]).await?)?;
        fixture.secret("weak.token", &self.token(&["no-such-policy"]).await?)?;
        let (path, reader, url) = (&self.path, self.reader(), self.bao.url());
        let ca = self.bao.authority().context("no TLS")?.display();
        let connections = self.connection("backend", "token") + &self.connection("weak", "weak.token");
        fixture.write(&format!(
            r#"{connections}
[targets.people]
connection = "backend"
default_role = "reader"
config = {{ mount = "{path}" }}
roles.reader = {{ policies = ["{reader}"] }}
roles.missing = {{ policies = ["no-such-policy"] }}
roles.root = {{ policies = ["root"] }}
[conformance]
refused_roles = ["missing", "root"]
weak_connection = "weak"
[conformance.login]
kind = "http"
url = "{url}"
ca = "{ca}"
request = {{ method = "POST", path = "/v1/auth/{path}/login/{{name}}", json = {{ password = "{{password}}" }} }}
token = "/auth/client_token"
refused_with = [400, 403]
allowed = [{{ path = "/v1/kv_{path}/items", headers = {{ x-vault-token = "{{token}}" }} }}]
refused = [{{ path = "/v1/kv_{path}/others", headers = {{ x-vault-token = "{{token}}" }} }}]
[conformance.login.change_password]
method = "POST"
path = "/v1/auth/{path}/users/{{name}}/password"
headers = {{ x-vault-token = "{{token}}" }}
json = {{ password = "{{new}}" }}
"#
        ))?;
        Ok(fixture)
    }
}
