'use strict';
// A service that queries all the time, and never notices that its account changes.

const { setTimeout: wait } = require('node:timers/promises');
const { RotatingPool } = require('./rotating-pool.js');

const database = new RotatingPool(process.env.JIT_CREDENTIALS, { max: 4 });

const accounts = new Set();
let ok = 0;
let failed = 0;
let stop = false;

async function work() {
  while (!stop) {
    try {
      const { rows } = await database.query('SELECT current_user AS account, count(*) FROM items');
      ok += 1;
      if (!accounts.has(rows[0].account)) {
        accounts.add(rows[0].account);
        console.log(JSON.stringify({ account: rows[0].account }));
      }
    } catch (error) {
      failed += 1;
      console.error('a query failed:', error.message);
    }
    await wait(30);
  }
}

for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => (stop = true));

Promise.all([work(), work()]).then(async () => {
  await database.end();
  console.log(JSON.stringify({ queries: ok, failed, accounts: accounts.size }));
});
