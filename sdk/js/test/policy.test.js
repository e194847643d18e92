import assert from 'node:assert/strict';
import test from 'node:test';

import { allow, deny, log, policy, table, text } from '../jit-plugin/index.js';
import { decide, records, request } from '../jit-plugin/testing.js';

const oneWorkload = policy({
  config: table({ workload: text }),
  decide(config, asked) {
    log.info('asked', { workload: asked.workload, at: asked.time });
    return asked.workload === config.workload ? allow() : deny('another workload');
  },
});

test('it decides', () => {
  assert.equal(decide(oneWorkload, { workload: 'payment-service' }, request()).verdict, 'allow');
  assert.deepEqual(decide(oneWorkload, { workload: 'other' }, request()), { verdict: 'deny', reason: 'another workload' });
});

test('a wrong configuration is never decided with', () => {
  assert.throws(() => decide(oneWorkload, {}, request()), /`workload` is missing/);
});

test('what it logs can be looked at', () => {
  records.length = 0;
  decide(oneWorkload, { workload: 'x' }, request());
  assert.deepEqual(records, [{ level: 'info', message: 'asked', fields: { workload: 'payment-service', at: '1800000000' } }]);
});

test('what is no policy and no answer is refused', () => {
  assert.throws(() => policy({ decide: () => allow() }), /configuration/);
  assert.throws(() => policy({ config: table({}) }), /decide/);
  assert.throws(() => allow({ maxTtl: 60 }), /allow has no maxTtl/);
  for (const wrong of [-1, 0, 1.5, NaN, '60', null]) {
    assert.throws(() => allow({ maxTtlSeconds: wrong }), /at least 1/, String(wrong));
  }
  for (const answer of [true, undefined, Promise.resolve(allow())]) {
    assert.throws(() => decide(policy({ config: table({}), decide: () => answer }), {}, request()), /must return/);
  }
});
