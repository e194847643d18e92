import assert from 'node:assert/strict';
import test from 'node:test';

import { allow, deny, policy, table, Uncounted } from '../jit-plugin/index.js';
import { Request } from '../jit-plugin/request.js';
import { decide, request } from '../jit-plugin/testing.js';

/** A host that notes what is read, as the broker does. */
function host() {
  const read = [];
  const note = (what, value) => {
    read.push(what);
    return value;
  };
  const asked = new Request({
    role: () => note('role', 'reader'),
    attribute: (name) => note(`attribute ${name}`, name === 'env' ? 'prod' : undefined),
    attributes: () => note('attributes', [['env', 'prod'], ['team', 'x']]),
  });
  return { asked, read };
}

test('each thing is read when it is used, and once', () => {
  const { asked, read } = host();
  assert.deepEqual(read, []);
  assert.equal(asked.role + asked.role, 'readerreader');
  assert.equal(asked.attributes.env, 'prod');
  assert.equal(asked.attributes.nothing, undefined);
  assert.ok('env' in asked.attributes && !('nothing' in asked.attributes));
  assert.equal(asked.attributes.constructor, undefined);
  assert.deepEqual(read, ['role', 'attribute env', 'attribute nothing', 'attribute constructor']);
  assert.deepEqual({ ...asked.attributes }, { env: 'prod', team: 'x' });
  assert.deepEqual(Object.keys(asked.attributes), ['env', 'team']);
  assert.equal(asked.attributes.team, 'x');
  assert.deepEqual(read.slice(4), ['attributes']);
});

test('a request cannot be changed', () => {
  const { asked } = host();
  for (const change of [
    () => (asked.attributes.env = 'dev'),
    () => delete asked.attributes.env,
    () => Object.defineProperty(asked.attributes, 'env', { value: 'dev' }),
    () => (asked.attributes = {}),
  ]) {
    assert.throws(change, TypeError);
  }
});

test('counts are read by scope and window, and what is no count denies', () => {
  const facts = { 'usage.workload.requests.60': '7', 'usage.target.leases': '+3' };
  const { usage } = request({ facts });
  assert.equal(usage.requests('workload', 60), 7);
  assert.throws(() => usage.requests('workload', 61), Uncounted);
  assert.throws(() => usage.leases('target'), /no number/);
  assert.throws(() => usage.leases('everybody'), /workload_target/);
});

test('an operation that a policy does not know is denied', () => {
  const open = policy({ config: table({}), decide: () => allow() });
  const exchanges = policy({ config: table({}), operations: ['exchange'], decide: () => allow() });
  assert.equal(decide(open, {}, request({ operation: 'renew' })).verdict, 'allow');
  assert.match(decide(open, {}, request({ operation: 'exchange' })).reason, /does not know the operation "exchange"/);
  assert.equal(decide(exchanges, {}, request({ operation: 'exchange' })).verdict, 'allow');
  assert.equal(decide(exchanges, {}, request()).verdict, deny('').verdict);
});

test('a test cannot ask for a field that no request has', () => {
  assert.throws(() => request({ attribute: {} }), /a request has no attribute/);
});
