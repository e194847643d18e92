import assert from 'node:assert/strict';
import test from 'node:test';

import { Conflict, InvalidConfig, OutcomeUnknown, PluginError, Refused, Retryable } from './jit-plugin/index.js';
import { account, calls, FakeHttp, lost, reply, secret } from './jit-plugin/testing.js';
import driver, { TOKEN } from './driver.js';

const roles = { reader: { group: 'readers' } };
const server = (answer) => new FakeHttp(answer, { [TOKEN]: 'the-brokers-token' });
// Without accounts: it answers a question with 404, and a creation as it is told to.
const empty = (answer) =>
  server((sent) => (sent.method === 'GET' ? reply(404) : typeof answer === 'function' ? answer(sent) : answer));
const create = (http) => calls(driver, http, { roles }).create('reader', account('v-a'), secret('pw'));

test('an account expires in the step that makes it', () => {
  const http = empty(reply(201, { json: {} }));
  create(http);
  assert.deepEqual(http.lines, ['GET /users/v-a', 'POST /users']);
  const [, sent] = http.sent;
  assert.equal(JSON.parse(sent.body).expires_at, 1_800_003_600);
  // Placed by the host: the driver has only handles.
  assert.equal(JSON.parse(sent.body).password, '<pw>');
  assert.equal(sent.headers.authorization, 'Bearer <the-brokers-token>');
});

test('each answer tells what the host has to do', () => {
  for (const [status, error] of [[409, Conflict], [403, Refused], [503, Retryable], [500, OutcomeUnknown]]) {
    assert.throws(() => create(empty(reply(status))), error, String(status));
  }
  // A name that is taken is found by the question, and a lost question leaves nothing in doubt.
  assert.throws(() => create(server(reply(200, { json: {} }))), Conflict);
  assert.throws(() => create(server(() => {
    throw lost();
  })), Retryable);
  const loses = empty(() => {
    throw lost();
  });
  assert.throws(() => create(loses), OutcomeUnknown);
});

test('revoking what is not there is success', () => {
  calls(driver, server(reply(404))).revoke(account('v-a'));
  assert.throws(() => calls(driver, server(reply(500))).revoke(account('v-a')), PluginError);
});

test('names are listed by page', () => {
  const http = server(reply(200, { json: { names: ['v-a'], next: 'v-a' } }));
  assert.deepEqual(calls(driver, http).listAccounts('v-'), { names: ['v-a'], next: 'v-a' });
  assert.deepEqual(http.lines, ['GET /users?prefix=v-&after=']);
});

test('a configuration is checked', () => {
  const wrong = calls(driver, server(reply(200)), { roles: { reader: { group: '' } } });
  assert.throws(() => wrong.validate(), (error) => {
    assert.ok(error instanceof InvalidConfig);
    assert.deepEqual(error.problems.map(({ path }) => path), ['roles.reader.group']);
    return true;
  });
});
