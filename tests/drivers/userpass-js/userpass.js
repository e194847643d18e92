// A driver for the userpass accounts of Vault and OpenBao: an example of a driver in JavaScript.
//
// An account is a user of an auth mount. Its tokens are its sessions. The server has no expiry for a user, so the broker
// alone removes it; no token outlives the lease that was known when the account was made.

import {
  Conflict,
  httpDriver,
  list,
  NotFound,
  OutcomeUnknown,
  problem,
  Refused,
  Retryable,
  table,
  text,
} from './jit-plugin/index.js';

// Names on one page: the server gives all of them at once.
const PAGE = 100;

/** A request with the broker's token. What is no success is thrown. */
function ask(http, method, path, more = {}) {
  const headers = { 'x-vault-token': http.credential('token'), 'x-vault-request': 'true' };
  const response = http.send(method, ['v1', ...path], { headers, ...more });
  const { status } = response;
  if (status >= 200 && status < 300) return response;
  const told = `${method} ${path.slice(0, 2).join('/')}: status ${status}`;
  if (status === 404) throw new NotFound();
  if (status === 429 || status === 503) throw new Retryable(told, response.retryAfterMs);
  if (status >= 400 && status < 500) throw new Refused(`${told}: ${reasons(response)}`);
  throw new OutcomeUnknown(told);
}

/** The server's own words. */
function reasons(response) {
  const { errors = ['no reason'] } = response.json();
  return errors.map((error) => String(error).trim()).join('; ').slice(0, 300);
}

/** The answer, or undefined where there is nothing. */
function found(call) {
  try {
    return call();
  } catch (error) {
    if (error instanceof NotFound) return undefined;
    throw error;
  }
}

const user = (target, name) => ['auth', target.config.mount, 'users', name];
const users = (http, target) =>
  found(() => ask(http, 'GET', ['auth', target.config.mount, 'users'], { query: { list: 'true' } }));
const longest = ({ expiresAt, now }) => ({ token_explicit_max_ttl: Math.max(1, expiresAt - now) });

/** Revokes the tokens of every login of that user. */
function endSessions(http, target, name) {
  const login = ['auth', target.config.mount, 'login', name];
  ask(http, 'PUT', ['sys', 'leases', 'revoke-prefix', ...login], { json: {} });
}

/** What is wrong with a role: the server itself takes any name, and gives nothing for it. */
function wrongPolicies(http, { policies }) {
  if (policies.length === 0) return [['', 'is empty: name a policy of the server']];
  return policies.flatMap((policy, index) => {
    if (policy === 'root') return [[`[${index}]`, 'is root, which may do everything']];
    const there = found(() => ask(http, 'GET', ['sys', 'policies', 'acl', policy]));
    return there ? [] : [[`[${index}]`, `there is no policy ${policy} at the server`]];
  });
}

export default httpDriver({
  // config = { mount = "userpass" }: the path of the auth mount.
  target: table({ mount: text }),
  // roles.reader = { policies = ["app-read"] }: policies of the server that the account's tokens get.
  role: table({ policies: list(text) }),

  describe: {
    maxNameLength: 64,
    features: ['renew', 'rotate', 'inspect', 'list-accounts'],
    properties: { 'own-errors': '/errors' },
  },

  *validate(http, target, roles) {
    // A mount that is not there is told as such by the first account.
    users(http, target);
    for (const { name, config } of roles) {
      for (const [place, wrong] of wrongPolicies(http, config)) yield problem(`roles.${name}.policies${place}`, wrong);
    }
  },

  create(http, target, role, account, password) {
    const [wrong] = wrongPolicies(http, role.config);
    if (wrong) throw new Refused(`role ${role.name}: ${wrong[1]}`);
    // The server would change a user that is there.
    if (found(() => ask(http, 'GET', user(target, account.name)))) throw new Conflict(`the user ${account.name} exists`);
    const json = { password, token_policies: role.config.policies, token_no_default_policy: true, ...longest(account) };
    ask(http, 'POST', user(target, account.name), { json });
  },

  renew(http, target, role, account) {
    ask(http, 'GET', user(target, account.name));
    ask(http, 'POST', user(target, account.name), { json: longest(account) });
    return account.expiresAt;
  },

  rotate(http, target, account, step, password) {
    if (step !== 'stage' && step !== 'replace') return;
    ask(http, 'GET', user(target, account.name));
    ask(http, 'POST', [...user(target, account.name), 'password'], { json: { password } });
    if (step === 'replace') endSessions(http, target, account.name);
  },

  revoke(http, target, account) {
    // First the login, then what was logged in: nobody comes back in between.
    ask(http, 'DELETE', user(target, account.name));
    endSessions(http, target, account.name);
  },

  inspect(http, target, name) {
    // The server takes names in any case for the same user.
    if (name !== name.toLowerCase()) throw new NotFound();
    ask(http, 'GET', user(target, name));
    return { canLogin: true };
  },

  listAccounts(http, target, prefix, cursor = '') {
    const keys = users(http, target)?.json().data.keys ?? [];
    const names = keys.filter((name) => name.startsWith(prefix) && name > cursor).sort();
    return { names: names.slice(0, PAGE), next: names.length > PAGE ? names[PAGE - 1] : undefined };
  },

  place(http, target) {
    const health = http.send('GET', ['v1', 'sys', 'health'], { query: { standbyok: 'true', perfstandbyok: 'true' } });
    if (health.status !== 200) throw new Retryable(`GET sys/health: status ${health.status}`);
    const { cluster_id: server } = health.json();
    return { mount: target.config.mount, ...(server && { server }) };
  },
});
