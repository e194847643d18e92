import assert from 'node:assert/strict';
import test from 'node:test';

import { gather, problems, request } from './jit-plugin/testing.js';
import facts from './facts.js';

const config = { teams: [{ prefix: 'payment-', team: 'payments' }] };

test('a workload gets the team of its prefix', () => {
  assert.deepEqual(gather(facts, config, request()), { team: 'payments' });
  assert.deepEqual(gather(facts, config, request({ workload: 'batch' })), {});
});

test('a prefix that fits everybody is a mistake', () => {
  const found = problems(facts, { teams: [{ prefix: '', team: 'all' }] });
  assert.deepEqual(found.map(({ path }) => path), ['teams[0].prefix']);
});
