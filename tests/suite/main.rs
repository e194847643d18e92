//! End to end, against real servers. One binary, so that it is linked once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(missing_docs, reason = "each test's name says what holds")]

// After each module: what its tests need besides PostgreSQL, the broker and the plugins. `cargo xtask test -- agent::`
// reads these lines and prepares no more than that; a module without one is an error of a test. The words are
// the names of servers (`cargo xtask servers --help`), `all servers`, `ingredients` (what the examples in other
// languages run on) and `languages` (what makes plugins of Python and JavaScript).
mod agent; // needs: nothing else
mod agent_faults; // needs: nothing else
mod agent_process; // needs: nothing else
mod api; // needs: nothing else
mod away; // needs: nothing else
mod backends; // needs: all servers
mod backends_directory; // needs: all servers
mod backends_faults; // needs: all servers
mod backends_migration; // needs: all servers
mod backends_vault; // needs: all servers
mod check; // needs: nothing else
mod cli; // needs: nothing else
mod client; // needs: nothing else
mod client_faults; // needs: nothing else
mod client_mysql; // needs: mysql
mod compiled_once; // needs: nothing else
mod concurrency; // needs: nothing else
mod conformance; // needs: all servers
mod conjur_server; // needs: nothing else
mod connections; // needs: nothing else
mod contexts; // needs: nothing else
mod decisions; // needs: nothing else
mod deploy; // needs: ingredients
mod dev; // needs: nothing else
mod disposable; // needs: nothing else
mod examples; // needs: ingredients
mod external; // needs: nothing else
mod faults; // needs: nothing else
mod full_disk; // needs: nothing else
mod give_back; // needs: nothing else
mod hostile; // needs: nothing else
mod hostile_tenant; // needs: all servers
mod idempotency; // needs: nothing else
mod incident; // needs: nothing else
mod languages; // needs: languages
mod languages_contexts; // needs: languages
mod languages_drivers; // needs: languages, openbao
mod leases; // needs: nothing else
mod migration; // needs: nothing else
mod new_drivers; // needs: ldap
mod observed; // needs: nothing else
mod operators; // needs: nothing else
mod outage; // needs: nothing else
mod ownership; // needs: nothing else
mod pages; // needs: languages, openbao
mod places; // needs: nothing else
mod policies; // needs: nothing else
mod policy_replay; // needs: nothing else
mod policy_story; // needs: languages
mod readme; // needs: nothing else
mod ready; // needs: nothing else
mod reload; // needs: nothing else
mod removal; // needs: nothing else
mod rotating; // needs: mysql
mod secrets; // needs: nothing else
mod servers; // needs: all servers
mod set_back; // needs: nothing else
mod shutdown; // needs: nothing else
mod signing; // needs: nothing else
mod stores; // needs: nothing else
mod storm; // needs: nothing else
mod story; // needs: nothing else
mod targets; // needs: nothing else
mod tasks; // needs: nothing else
mod tls; // needs: nothing else
mod tokens; // needs: nothing else
mod verifiers; // needs: nothing else
