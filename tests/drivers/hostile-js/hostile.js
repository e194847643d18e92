// A driver that makes, by its configuration, the mistakes that drivers make. What is told of each names its place here.

import { httpDriver, table, text } from './jit-plugin/index.js';

const tries = {
  raises: () => undefined.name,
  *yields() {
    yield undefined.name;
  },
  misuses_the_sdk: (http) => http.send('GET', 'users'),
  parses: () => JSON.parse('{'),
  returns_a_number: () => 7,
  promises: async () => [],
  shows_a_secret: (http) => `Bearer ${http.credential('token')}`,
  waits: () => Date.now(),
  loops: () => {
    for (;;);
  },
  grows: () => new Uint8Array(2 ** 28).length,
  recurses: (http) => [tries.recurses(http)],
  throws_text: () => {
    throw 'only a text';
  },
};

export default httpDriver({
  target: table({ mode: text }),
  role: table({}),
  describe: { maxNameLength: 64, features: ['inspect'] },

  validate: (http, { config: { mode } }) => (tries[mode] ?? (() => []))(http),

  create(http, { config: { mode } }, role, account, password) {
    if (mode === 'created_text') return account.name;
    if (mode === 'gives_back') return { secret: password };
    if (mode === 'sends_first') http.send('POST', ['users'], { json: { password } });
    throw new RangeError('create is broken');
  },

  revoke() {},
  inspect: () => ({ canLogin: 'yes' }),
});
