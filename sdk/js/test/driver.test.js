import assert from 'node:assert/strict';
import test from 'node:test';

import { allow, deny, Failed, httpDriver, InvalidConfig, optional, problem, table, text, whole } from '../jit-plugin/index.js';
import { account, calls, FakeHttp, reply, secret } from '../jit-plugin/testing.js';

const describe = { maxNameLength: 64, features: ['renew'] };
const types = { target: table({ size: optional(whole, 1) }), role: table({ group: text }) };
const roles = { reader: { group: 'readers' } };
const made = (answer) =>
  httpDriver({
    ...types,
    describe,
    *validate(http, target, roles) {
      for (const { name, config } of roles) if (config.group === '') yield problem(`roles.${name}.group`, 'is empty');
    },
    create: (http, target, role, account, password) => (typeof answer === 'function' ? answer(password) : answer),
    revoke: () => answer,
    renew: () => answer,
    inspect: () => answer,
    listAccounts: () => answer,
    maintain: () => answer,
    place: () => answer,
  });
const saying = (answer) => calls(made(answer), new FakeHttp(reply(200)), { roles });

test('every mistake of a target and its roles is told at once', () => {
  const wrong = { good: { group: 'a' }, bad: { group: 7 }, misspelt: { groups: 'a' } };
  const places = (config, roles) => {
    try {
      calls(made(), new FakeHttp(reply(200)), { config, roles }).validate();
    } catch (error) {
      assert.ok(error instanceof InvalidConfig, String(error));
      return error.problems.map(({ path }) => path);
    }
    return [];
  };
  assert.deepEqual(places({ size: 'x' }, wrong), ['size', 'roles.bad.group', 'roles.misspelt.groups', 'roles.misspelt']);
  assert.deepEqual(places({}, { good: { group: 'a' } }), []);
  assert.deepEqual(places({}, { bad: { group: '' } }), ['roles.bad.group']);
});

test('an answer of another type is told with the function', () => {
  const asks = {
    create: (driver) => driver.create('reader', account('v-a'), secret('pw')),
    renew: (driver) => driver.renew('reader', account('v-a')),
    inspect: (driver) => driver.inspect('v-a'),
    listAccounts: (driver) => driver.listAccounts('v-'),
    maintain: (driver) => driver.maintain(),
    place: (driver) => driver.place(),
  };
  for (const [name, ask] of Object.entries(asks)) {
    for (const answer of ['text', true, -1, { a: 1 }, ['a'], Promise.resolve(7)]) {
      assert.throws(() => ask(saying(answer)), new RegExp(`^WrongAnswer: ${name} `), `${name} ${answer}`);
    }
  }
  assert.throws(() => saying(Promise.resolve()).revoke(account('v-a')), /revoke must return nothing, and not a promise/);
  assert.equal(saying(7).renew('reader', account('v-a')), 7);
  assert.deepEqual(saying({ mount: 'a' }).place(), { mount: 'a' });
});

test('the password of the host cannot be issued', () => {
  const create = (answer) => saying(answer).create('reader', account('v-a'), secret('pw'));
  assert.throws(() => create((password) => ({ secret: password })), /the host knows it/);
  assert.throws(() => create({ secret: 'pw' }), /secret must be a Secret that an answer withheld/);
  const [withheld] = new FakeHttp(reply(200, { json: { pw: 'x' } })).send('GET', ['a'], { withhold: ['/pw'] }).withheld;
  assert.equal(create(() => ({ secret: withheld })).secret, withheld);
});

test('what is no driver is refused while it is made', () => {
  const verbs = { create() {}, revoke() {} };
  assert.throws(() => httpDriver({ ...verbs, describe }), /say what its configuration is: target/);
  assert.throws(() => httpDriver({ ...types, describe, create() {} }), /a driver has a function revoke/);
  assert.throws(() => httpDriver({ ...types, ...verbs, describe: { maxNameLength: 0 } }), /maxNameLength is 0/);
  assert.throws(() => httpDriver({ ...types, ...verbs, describe: { ...describe, features: ['fly'] } }), /no feature fly/);
  const least = calls(httpDriver({ ...types, ...verbs, describe }), new FakeHttp(reply(200)));
  assert.throws(() => least.rotate(account('v-a'), 'stage', secret('pw')), Failed);
});

test('verdicts have texts', () => {
  for (const wrong of [() => allow({ reason: null }), () => allow({ labels: { a: 1 } }), () => deny(undefined)]) {
    assert.throws(wrong, TypeError);
  }
});
