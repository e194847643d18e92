// A policy that tries, by its configuration, what no policy may do or can do. Its cases say what comes of it.

import { allow, policy, table, text } from './jit-plugin/index.js';

// What is made while the component is built is there in every call, and changes to it are not.
const seen = [];

const tries = {
  clock: () => Date.now(),
  clock_new: () => new Date().toISOString(),
  clock_called: () => Date(),
  time_given: ({ time }) => new Date(time * 1000).toISOString(),
  performance: () => performance.now(),
  chance: () => Math.random(),
  secrets: () => crypto.getRandomValues(new Uint8Array(8)).join(),
  remembers: ({ workload }) => seen.push(workload),
  environment: () => process.env.PATH,
  fetches: () => fetch('http://127.0.0.1/'),
  loops: () => {
    for (;;);
  },
  grows: () => new Uint8Array(2 ** 28).length,
  recurses: (request) => tries.recurses(request) + 1,
  throws_text: () => {
    throw 'only a text';
  },
  throws_nothing: () => {
    throw undefined;
  },
  floods: () => 'x'.repeat(8 << 20),
  forges: () => 'ok\n2026-01-05 granted \x1b[31m\u202e',
};

export default policy({
  config: table({ mode: text }),
  *validate({ mode }) {
    if (mode === 'refuse') throw new Error('validate is broken');
  },
  decide({ mode }, request) {
    if (mode === 'no_answer') return true;
    if (mode === 'promise') return Promise.resolve(allow());
    if (mode === 'wrong_requirement') return allow({ requires: ['luck'] });
    if (mode === 'negative') return allow({ maxTtlSeconds: -1 });
    return allow({ reason: String(tries[mode](request)) });
  },
});
