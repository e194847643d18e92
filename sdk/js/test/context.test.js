import assert from 'node:assert/strict';
import test from 'node:test';

import { context, httpContext, table, text } from '../jit-plugin/index.js';
import { inALine } from '../jit-plugin/places.js';
import { FakeHttp, gather, reply, request } from '../jit-plugin/testing.js';

test('facts come from configuration, request and server', () => {
  const team = context({
    config: table({ prefix: text }),
    gather: ({ prefix }, { workload }) => (workload.startsWith(prefix) ? { team: 'payments' } : {}),
  });
  assert.deepEqual(gather(team, { prefix: 'payment-' }, request()), { team: 'payments' });
  assert.deepEqual(gather(team, { prefix: 'payment-' }, request({ workload: 'batch' })), {});
  assert.throws(() => gather(team, {}, request()), /`prefix` is missing/);

  const asks = httpContext({
    config: table({}),
    gather: (http, config, { workload }) => ({ score: String(http.send('GET', ['hosts', workload]).json().score) }),
  });
  const http = new FakeHttp(reply(200, { json: { score: 87 } }));
  assert.deepEqual(gather(asks, {}, request(), http), { score: '87' });
  assert.deepEqual(http.lines, ['GET /hosts/payment-service']);
});

test('facts are texts', () => {
  for (const answer of [undefined, ['a'], { a: 1 }, { a: undefined }, 'a', Promise.resolve({})]) {
    const gives = context({ config: table({}), gather: () => answer });
    assert.throws(() => gather(gives, {}, request()), /^WrongAnswer: gather returned what it must not: facts/);
  }
  assert.throws(() => context({ gather() {} }), /configuration/);
  assert.throws(() => context({ config: table({}) }), /gather/);
});

test('the place of an exception is in the author’s file, in the words of either engine', () => {
  const told = (stack) => inALine(Object.assign(new Error('x'), { stack }), 'rule.js');
  const spidermonkey = 'text@jit-plugin/checks.js:18:11\nhelper@rule.js:7:3\ndecide@rule.js:12:5\nask@jit-plugin/policy.js:1:1';
  assert.equal(told(spidermonkey), 'Error: x (rule.js:7 in helper)');
  const v8 = 'Error: x\n    at text (file:///a/jit-plugin/checks.js:18:11)\n    at Object.decide (file:///a/rule.js:12:5)';
  assert.equal(told(v8), 'Error: x (rule.js:12 in decide)');
  assert.equal(told(''), 'Error: x (rule.js)');
  assert.equal(inALine('only a text'), 'only a text');
  assert.equal(inALine(undefined), 'undefined');
  assert.ok(inALine(new Error('x'.repeat(5000))).length < 900);
});
