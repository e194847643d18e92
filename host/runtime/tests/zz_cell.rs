#![allow(clippy::unwrap_used)]
mod fixtures;
use fixtures::*;
#[tokio::test]
async fn cell() {
    let url = url::Url::parse(&std::env::var("JIT_TEST_POSTGRES_URL").unwrap()).unwrap();
    let c = std::sync::Arc::new(jit_runtime::SqlConnection::new(jit_runtime::SqlConnectionOptions::new("c", url, None)).unwrap());
    let b = bench(); let d = b.driver("driver-hostile");
    let o = d.create(&scope_with(&c), &target(r#"{"mode":"huge-cell"}"#), &role("{}"), &account(), &jit_core::secret::generate_password()).await;
    println!("{o:?}");
    println!("{}", std::fs::read_to_string("/proc/self/status").unwrap().lines().filter(|l| l.starts_with("VmRSS")||l.starts_with("VmHWM")).collect::<Vec<_>>().join(" "));
}
