'use strict';

const fs = require('node:fs');
const { setTimeout: wait } = require('node:timers/promises');
const { Pool } = require('pg');

/** For leases of an hour; always shorter than the lease. */
const MAX_LIFETIME = 45 * 60;

/**
 * A pool of the account that `jit-agent renew --format json` keeps in a file. Copy this file.
 *
 * A new lease has a new user name, so that changing the password of a pool is not enough: the pool
 * is exchanged. The one before finishes what it has, long before its account ends: the agent
 * renews at 80 % of the lease.
 */
class RotatingPool {
  /** Throws when there is no credential yet: the init container has to have run. */
  constructor(file, options = {}) {
    this.file = file;
    this.options = options;
    this.retiring = new Set();
    this.pool = this.#open();
    // Asks the file's time, which works on every file system.
    fs.watchFile(file, { interval: 250 }, (now, before) => {
      if (now.mtimeMs !== before.mtimeMs && now.mtimeMs !== 0) this.#exchange();
    });
  }

  query(...query) {
    return this.pool.query(...query);
  }

  #open() {
    // The agent renames a whole file into place: there is no half of one to read.
    const lease = JSON.parse(fs.readFileSync(this.file, 'utf8'));
    const pool = new Pool({
      ...this.options,
      host: lease.host,
      port: lease.port,
      database: lease.database,
      user: lease.username,
      password: lease.password,
      maxLifetimeSeconds: MAX_LIFETIME,
    });
    // Without a listener, an idle connection that the server ends would end the process.
    pool.on('error', (error) => console.error('an idle connection ended:', error.message));
    return pool;
  }

  #exchange() {
    try {
      const before = this.pool;
      this.pool = this.#open();
      const retired = this.#retire(before).finally(() => this.retiring.delete(retired));
      this.retiring.add(retired);
    } catch (error) {
      console.error('the new credential could not be taken; the one before stays:', error.message);
    }
  }

  /** Whoever waits for a connection of it gets one first: `end` would leave them waiting. */
  async #retire(pool) {
    while (pool.waitingCount > 0) await wait(20);
    await pool.end().catch((error) => console.error('a pool did not end well:', error.message));
  }

  async end() {
    fs.unwatchFile(this.file);
    await Promise.all([...this.retiring, this.#retire(this.pool)]);
  }
}

module.exports = { RotatingPool };
