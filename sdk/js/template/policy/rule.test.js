import assert from 'node:assert/strict';
import test from 'node:test';

import { decide, problems, request } from './jit-plugin/testing.js';
import rule from './rule.js';

const config = { environments: ['prod'], max_ttl: '30m' };

test('a workload of the environment is allowed', () => {
  const answer = decide(rule, config, request({ attributes: { env: 'prod' } }));
  assert.equal(answer.verdict, 'allow');
  assert.equal(answer.maxTtlSeconds, 1800);
});

test('others are denied and told why', () => {
  for (const attributes of [{}, { env: 'dev' }, { env: 'prod\n' }, { env: 'PROD' }]) {
    const answer = decide(rule, config, request({ attributes }));
    assert.equal(answer.verdict, 'deny');
    assert.match(answer.reason, /only workloads of prod/);
  }
});

test('some roles need a ticket', () => {
  const strict = { ...config, need_ticket: ['app_read_write'] };
  const answer = decide(rule, strict, request({ role: 'app_read_write', attributes: { env: 'prod' } }));
  assert.deepEqual(answer.requires, ['ticket']);
});

test('a configuration is checked', () => {
  assert.deepEqual(problems(rule, { environments: [] }).map(({ path }) => path), ['environments']);
  assert.match(problems(rule, { environment: [] })[0].message, /write `environments`/);
});
