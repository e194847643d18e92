//! A disk that is really full: nobody's access outlives its lease for it, and the reserve lets that be recorded.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use jit_tests::world::eventually;
use jit_tests::{Settings, World};
use serde_json::json;

/// A small file system, for as long as this lives.
struct Small(PathBuf);

impl Small {
    /// None where this user may not mount one: said, since then this is not tested.
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs"]).arg(at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            Ok(output) => {
                eprintln!("NOT RUN: a full disk needs a tmpfs: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                eprintln!("NOT RUN: a full disk needs a tmpfs: {error}");
                None
            }
        }
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        let block = [0_u8; 4096];
        while file.write_all(&block).is_ok() {}
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn on_a_full_disk_accounts_go_at_their_time_and_that_is_recorded() {
    let more = "[runtime]\ncache_dir = \"cache\"\n".to_owned();
    let mut world = World::prepared(Settings { more, ..Settings::default() }).await;
    let Some(small) = Small::mount(&world.folder.path().join("small")) else { return };
    let store = "url = \"sqlite:small/broker.db\"\nlow_space_mib = 0\nstop_space_mib = 0\nreserve_mib = 4";
    world.rewrite("url = \"sqlite:broker.db\"", store);
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let lease = client.issue(&token, &json!({"target": "inventory_db", "ttl": "5s"})).await.unwrap();
    assert_eq!(lease.status, 201, "{}", lease.text);
    let reserve = small.0.join("broker.db.reserve");
    eventually("a reserve is kept", async || reserve.exists()).await;
    small.fill();
    eventually("the account is gone", async || world.accounts().await.is_empty()).await;
    eventually("that is on record", async || world.records_of(lease.lease(), "lease.expired") == 1).await;
    assert!(!reserve.exists(), "it was given up for that record");
    std::fs::remove_file(small.0.join("filler")).unwrap();
    eventually("the reserve is kept again", async || reserve.exists()).await;
    let next = client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
    assert_eq!(next.status, 201, "{}", next.text);
    world.assert_log_is_intact();
    world.process().stop().unwrap();
}
