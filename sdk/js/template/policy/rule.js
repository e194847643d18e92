// The policy my-rule: a workload gets only what is of its own environment, and not for long.

import { allow, deny, list, log, optional, policy, problem, seconds, table, text } from './jit-plugin/index.js';

export default policy({
  // config = { environments = ["prod"], max_ttl = "30m" }
  config: table({
    environments: list(text),
    max_ttl: optional(seconds, '1h'),
    // Roles that are given only with a ticket.
    need_ticket: optional(list(text), []),
  }),

  *validate(config) {
    if (config.environments.length === 0) {
      yield problem('environments', 'is empty, so nobody would get anything: name one, such as "prod"');
    }
  },

  decide(config, request) {
    const environment = request.attributes.env;
    if (!config.environments.includes(environment)) {
      return deny(`only workloads of ${config.environments.join(', ')}; ${request.workload} is of ${environment ?? 'none'}`);
    }
    log.debug('allowed', { workload: request.workload, environment });
    return allow({
      reason: `of ${environment}`,
      maxTtlSeconds: config.max_ttl,
      requires: config.need_ticket.includes(request.role) ? ['ticket'] : [],
      labels: { environment },
    });
  },
});
