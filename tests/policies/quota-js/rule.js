// A policy that decides by what the host counts, and by where the caller is and what the request is about.

import { allow, deny, policy, seconds, table, whole } from './jit-plugin/index.js';

export default policy({
  config: table({ requests: whole, window: seconds, leases: whole }),
  windows: (config) => [config.window],
  decide(config, request) {
    const count = request.usage.requests('workload', config.window);
    if (count > config.requests) return deny(`this is request ${count} of ${config.requests}`);
    if (request.operation === 'issue' && request.usage.leases('workload_target') > config.leases) {
      return deny('too many live leases');
    }
    const about = request.resource.lease ?? 'nothing';
    return allow({ reason: `request ${count}`, labels: { from: request.callerAddress ?? 'nowhere', about } });
  },
});
