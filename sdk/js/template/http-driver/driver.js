// The driver my-http-driver: accounts behind an HTTP API that keeps them at `users/NAME`.
//
// A place to begin from: it speaks an API that any test server can play. The requests go to the connection's URL; its
// token is a secret of the connection that the host puts into the header and this driver never sees.

import {
  Conflict,
  httpDriver,
  NotFound,
  OutcomeUnknown,
  problem,
  Refused,
  Retryable,
  table,
  text,
} from './jit-plugin/index.js';

// The secret of the connection that is sent as a bearer token.
export const TOKEN = 'token';

/** Sends a request with the broker's token, and says what its answer means for the host. */
function send(http, method, path, more = {}) {
  const headers = { authorization: ['Bearer ', http.credential(TOKEN)] };
  const response = http.send(method, path, { headers, ...more });
  const { status } = response;
  if (status >= 200 && status < 300) return response;
  if (status === 404) throw new NotFound();
  if (status === 409) throw new Conflict('an account of that name exists');
  // The server answered before it did anything.
  if (status === 429 || status === 503) throw new Retryable(`the server answered ${status}`, response.retryAfterMs);
  if (status >= 400 && status < 500) throw new Refused(`the server answered ${status}`);
  // It may have failed in the middle.
  throw new OutcomeUnknown(`the server answered ${status}`);
}

/** Whether the server has an account of that name. */
function isThere(http, name) {
  try {
    send(http, 'GET', ['users', name]);
    return true;
  } catch (error) {
    if (error instanceof NotFound) return false;
    throw error;
  }
}

export default httpDriver({
  // [targets.T.config]: nothing to say.
  target: table({}),
  // [targets.T.roles.R]: the group that accounts become members of.
  role: table({ group: text }),

  describe: { maxNameLength: 64, features: ['renew', 'backstop', 'inspect', 'list-accounts'] },

  *validate(http, target, roles) {
    for (const { name, config } of roles) {
      if (config.group === '') yield problem(`roles.${name}.group`, 'is empty: name a group');
    }
  },

  create(http, target, role, account, password) {
    // A question first: while the server is away, nothing is then in doubt.
    if (isThere(http, account.name)) throw new Conflict('an account of that name exists');
    // The expiry is set in the same step: whatever happens to the broker, the account dies. The host puts the
    // password in its place.
    const user = { name: account.name, group: role.config.group, expires_at: account.expiresAt, password };
    send(http, 'POST', ['users'], { json: user });
  },

  renew(http, target, role, account) {
    send(http, 'PATCH', ['users', account.name], { json: { expires_at: account.expiresAt } });
    return account.expiresAt;
  },

  revoke(http, target, account) {
    try {
      send(http, 'DELETE', ['users', account.name]);
    } catch (error) {
      if (!(error instanceof NotFound)) throw error;
    }
  },

  inspect(http, target, name) {
    const user = send(http, 'GET', ['users', name]).json();
    return { canLogin: user.enabled ?? true, expiresAt: user.expires_at };
  },

  listAccounts(http, target, prefix, cursor = '') {
    const { names, next } = send(http, 'GET', ['users'], { query: { prefix, after: cursor } }).json();
    return { names, next };
  },
});
