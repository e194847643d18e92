import assert from 'node:assert/strict';
import test from 'node:test';

import { encode, Failed, key, OutcomeUnknown, Retryable } from '../jit-plugin/index.js';
import { away, FakeHttp, lost, reply, secret } from '../jit-plugin/testing.js';

const raises = (error) => () => {
  throw error;
};

test('secrets are placed wherever a text can stand', () => {
  const [http, pw] = [new FakeHttp(reply(204)), secret('pw')];
  http.send('POST', ['a/b'], { json: { deep: [{ 'a~b/c': pw }], name: 'v' }, headers: { 'X-Token': ['t=', pw] } });
  http.send('POST', ['a'], { form: { jwt: pw, a: 'b c' } });
  http.send('PUT', ['a'], { text: ['key=', pw], query: { list: 'a b' } });
  const bodies = http.sent.map(({ body }) => body);
  assert.deepEqual(bodies, ['{"deep":[{"a~b/c":"<pw>"}],"name":"v"}', 'jwt=<pw>&a=b%20c', 'key=<pw>']);
  assert.deepEqual(http.sent[0].headers, { 'x-token': 't=<pw>', 'content-type': 'application/json' });
  assert.deepEqual(http.lines, ['POST /a%2Fb', 'POST /a', 'PUT /a?list=a%20b']);
});

test('a plugin reads no secret', () => {
  const json = { data: { password: 'pw-1', name: 'v-1' }, echo: 'token-1' };
  const http = new FakeHttp(reply(200, { json }), { token: 'token-1' });
  const token = http.credential('token');
  const response = http.send('GET', ['a'], { headers: { t: token }, withhold: ['/data/password', '/data/missing'] });
  assert.ok(!response.body.includes('pw-1') && !response.body.includes('token-1'), response.body);
  assert.deepEqual(response.json().data, { password: null, name: 'v-1' });
  assert.deepEqual(response.withheld.map((held) => held === undefined), [false, true]);
  assert.equal(http.send('GET', ['a'], { withhold: [''] }).body, '');
  for (const reads of [() => String(token), () => `${token}`, () => '' + token, () => JSON.stringify({ token })]) {
    assert.throws(reads, /a secret has no text/);
  }
  assert.deepEqual(Object.keys(token), []);
});

test('a lost answer is unknown unless it was a question', () => {
  for (const [error, method, changes, expected] of [
    [away(), 'POST', false, Retryable],
    [lost(), 'POST', false, OutcomeUnknown],
    [lost(), 'DELETE', false, OutcomeUnknown],
    [lost(), 'GET', true, OutcomeUnknown],
    [lost(), 'GET', false, Retryable],
  ]) {
    assert.throws(() => new FakeHttp(raises(error)).send(method, ['a'], { changes }), expected, `${method} ${changes}`);
  }
  for (const path of [[''], ['.'], ['..', 'a']]) assert.throws(() => new FakeHttp(reply(200)).send('GET', path), Failed);
});

test('what is no request is told', () => {
  for (const [what, told] of [
    [{ path: 'users' }, /path must be a list of texts, not a text/],
    [{ method: 'get' }, /the method is one of/],
    [{ more: { json: {}, form: {} } }, /one body, not json and form/],
    [{ more: { json: secret('pw') } }, /must not be a Secret as a whole/],
    [{ more: { json: { a: NaN } } }, /json\/a is no number of JSON/],
    [{ more: { headers: { a: 7 } } }, /headers\.a\[0\] must be a text, not a number/],
    [{ more: { query: { a: undefined } } }, /query\.a must be a text, not undefined/],
    [{ more: { changes: 1 } }, /changes is true or false/],
    [{ more: { body: 'x' } }, /a request has no body: there are/],
  ]) {
    const { method = 'POST', path = ['a'], more } = what;
    const http = new FakeHttp(reply(200));
    assert.throws(() => http.send(method, path, more), told);
    assert.deepEqual(http.sent, []);
  }
});

test('what is kept runs out and gives way to what is valid for longer', () => {
  const http = new FakeHttp(reply(200), { first: 'first', second: 'second' });
  const [first, second] = [http.credential('first'), http.credential('second')];
  assert.equal(http.kept('token'), undefined);
  http.keep('token', first, 100);
  http.keep('token', second, 500, 50);
  assert.equal(http.keptSecrets.get('token').name, 'first');
  http.keep('token', second, 500, 100);
  assert.equal(http.keptSecrets.get('token').name, 'second');
  assert.equal(http.kept('token', 501), undefined);
  assert.equal(http.forget('token', first), false);
  http.now += 500;
  assert.equal(http.kept('token'), undefined);
  assert.equal(http.forget('token', second), true);
  http.isFull = true;
  assert.throws(() => http.keep('token', first, 1), Failed);
  assert.throws(() => http.credential('third'), Failed);
});

test('the host writes basic and encodings, and the plugin sees none', () => {
  const http = new FakeHttp((sent) => reply(200, { text: sent.body }), { admin: 'pw-of-admin', fresh: 'pw-of-new' });
  const [admin, fresh] = [http.credential('admin'), http.credential('fresh')];
  const hash = encode.saltedDigest(fresh, 'sha256', { salt: 'before', saltBytes: 4, notation: 'base64' });
  const ldap = encode.joined('{SSHA}', encode.digest(fresh, 'sha1', { notation: 'hex' }));
  const response = http.send('PUT', ['users', 'a'], {
    headers: { authorization: encode.basic('root', admin) },
    json: { hash, ldap, n: 1 },
  });
  assert.equal(http.sent[0].headers.authorization, 'Basic <root:pw-of-admin>');
  const seen = { hash: '<sha256:pw-of-new>', ldap: '{SSHA}<sha1:pw-of-new>', n: 1 };
  assert.deepEqual(JSON.parse(http.sent[0].body), seen);
  assert.ok(!response.body.includes('pw-of-new'), response.body);
  http.send('POST', ['a'], { form: { p: encode.bcrypt(fresh, { cost: 4 }) } });
  assert.equal(http.sent[1].body, 'p=<bcrypt:pw-of-new>');
  const parts = ['x ', encode.pbkdf2(fresh, 'sha512', { iterations: 1 }), encode.written(fresh, 'hex')];
  http.send('POST', ['a'], { text: parts });
  assert.equal(http.sent[2].body, 'x <sha512:pw-of-new><hex:pw-of-new>');
});

test('an encoding that there is not is refused where it is written', () => {
  const fresh = secret('n');
  for (const [wrong, told] of [
    [() => encode.basic('a:b', fresh), /no colon/],
    [() => encode.basic('a', 'text'), /what is encoded is a Secret/],
    [() => encode.digest(fresh, 'md5', { notation: 'hex' }), /digest is "md5": it is one of sha1/],
    [() => encode.written(fresh, 'base32'), /notation is "base32"/],
    [() => encode.saltedDigest(fresh, 'sha1', { salt: 'before', saltBytes: 3, notation: 'hex' }), /4 to 64/],
    [() => encode.bcrypt(fresh, { cost: 13 }), /4 to 12/],
    [() => encode.pbkdf2(fresh, 'sha1', { iterations: 1 }), /digest is "sha1"/],
    [() => encode.joined('a', 7), /parts\[1\]/],
    [() => `${encode.bcrypt(fresh, { cost: 4 })}`, /has no text/],
  ]) {
    assert.throws(wrong, told);
  }
});

test('keys are those of the other SDKs', () => {
  assert.equal(key('token'), 'token cbf29ce484222325');
  const others = new Set([key('token', 'ab'), key('token', 'a', 'b'), key('token', 'b', 'a'), key('mark', 'ab')]);
  assert.equal(others.size, 4);
});

test('retry-after is read where it has seconds', () => {
  for (const [value, expected] of [['7', 7000], [' 7 ', 7000], ['', undefined], ['soon', undefined], ['9'.repeat(40), undefined]]) {
    const response = new FakeHttp(reply(200, { headers: { 'retry-after': value } })).send('GET', ['a']);
    assert.equal(response.retryAfterMs, expected, value);
  }
});
