// The context provider my-facts: which team a workload belongs to, for policies to judge.

import { context, list, problem, table, text } from './jit-plugin/index.js';

export default context({
  // config = { teams = [{ prefix = "payment-", team = "payments" }] }: the first whose prefix fits says the team.
  config: table({ teams: list(table({ prefix: text, team: text })) }),

  *validate(config) {
    for (const [index, { prefix }] of config.teams.entries()) {
      if (prefix === '') yield problem(`teams[${index}].prefix`, 'is empty, which fits every workload');
    }
  },

  gather(config, request) {
    const found = config.teams.find(({ prefix }) => request.workload.startsWith(prefix));
    return found ? { team: found.team } : {};
  },
});
