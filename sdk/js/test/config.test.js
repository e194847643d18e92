import assert from 'node:assert/strict';
import test from 'node:test';

import { list, map, number, oneOf, optional, parse, seconds, table, text, truth, whole } from '../jit-plugin/config.js';

const type = table({
  rules: list(table({ workload: text, roles: optional(list(text), []) })),
  cap: optional(seconds, '1m'),
  mode: optional(oneOf('strict', 'lax'), 'strict'),
  weights: optional(map(number), {}),
  note: optional(text),
  on: optional(truth, true),
  most: optional(whole, 3),
});
const told = (value) =>
  parse(type, typeof value === 'string' ? value : JSON.stringify(value)).problems.map(({ path, message }) => [path, message]);

test('values get their types, and what is missing its default', () => {
  const { config, problems } = parse(type, JSON.stringify({ rules: [{ workload: 'a' }], cap: '1h30m' }));
  assert.deepEqual(problems, []);
  assert.deepEqual(config.rules, [{ workload: 'a', roles: [] }]);
  assert.equal(config.cap, 5400);
  assert.equal(config.mode, 'strict');
  assert.equal(config.note, undefined);
});

test('every mistake is told with its place', () => {
  const wrong = { rules: [{ workload: 7 }, { roles: ['a', true] }, 3], cap: 'soon', mode: 'hard', on: 1, most: 1.5 };
  const places = told(wrong).map(([path]) => path);
  assert.deepEqual(places, ['rules[0].workload', 'rules[1]', 'rules[1].roles[1]', 'rules[2]', 'cap', 'mode', 'on', 'most']);
});

test('a misspelt key is told the right one', () => {
  assert.deepEqual(told({ rules: [], mod: 'lax' }), [['mod', 'is not a key that this plugin has: write `mode`']]);
  assert.match(told({ rules: [], entirely: 1 })[0][1], /there are: rules/);
  assert.deepEqual(told(''), [['', '`rules` is missing: add `rules = …`']]);
});

test('hostile texts are problems', () => {
  for (const json of ['[', '[]', '7', '"x"', '{'.repeat(100), '{"rules": [], "__proto__": 1}', '{"rules": [], "constructor": 1}']) {
    assert.ok(told(json).length > 0, json);
  }
  assert.match(told(' '.repeat((1 << 20) + 1))[0][1], /longer than/);
});

test('a table of any keys has no prototype to reach', () => {
  const { config, problems } = parse(map(text), '{"__proto__": "a", "constructor": "b"}');
  assert.deepEqual(problems, []);
  assert.deepEqual(Object.keys(config), ['__proto__', 'constructor']);
});

test('durations', () => {
  const read = (value) => {
    const problems = [];
    const made = seconds(value, '', problems);
    return problems.length > 0 ? undefined : made;
  };
  for (const [value, sum] of [['90s', 90], ['30m', 1800], ['1h30m', 5400], ['7d', 604800], ['1d1h1m1s', 90061], ['45', 45], [5, 5]]) {
    assert.equal(read(value), sum);
  }
  for (const wrong of ['', 's', '1h30', '30m1h', '1h1h', '1.5h', '1H', '1 h', '-1s', '0s', 0, -5, true, 1.5, null, `${'9'.repeat(40)}s`, '999999999d', '١s']) {
    assert.equal(read(wrong), undefined, String(wrong));
  }
});
