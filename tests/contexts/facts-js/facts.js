// A context provider that asks a server about the workload, or makes the mistakes that providers make.

import { httpContext, optional, table, text } from './jit-plugin/index.js';

const modes = {
  asks(http, { workload }) {
    const headers = { authorization: ['Bearer ', http.credential('token')] };
    const answer = http.send('GET', ['hosts', workload], { headers });
    return { score: answer.status === 200 ? String(answer.json().score) : '0' };
  },
  raises: () => ({ score: undefined.score }),
  parses: () => JSON.parse('{'),
  gives_a_list: () => ['score'],
  gives_a_number: () => ({ score: 7 }),
  loops: () => {
    for (;;);
  },
};

export default httpContext({
  config: table({ mode: optional(text, 'asks') }),
  gather: (http, { mode }, request) => modes[mode](http, request),
});
