// Secrets that a plugin can place but never read (BLIND-PLUGIN).

let open;

/** A class without a text: its text would put a word where the secret is meant. `why` is what its author reads. */
export function textless(why) {
  const unreadable = () => {
    throw new TypeError(why);
  };
  return class {
    toString() {
      return unreadable();
    }

    toJSON() {
      return unreadable();
    }

    [Symbol.toPrimitive]() {
      return unreadable();
    }
  };
}

/** A handle of a secret that the host owns: it is placed into a request, and nothing gives its bytes. */
export class Secret extends textless('a secret has no text: give it as a part, such as ["Bearer ", token]') {
  #handle;
  #isOwned;

  constructor(handle, isOwned = false) {
    super();
    this.#handle = handle;
    this.#isOwned = isOwned;
    Object.freeze(this);
  }

  static {
    open = (secret) => ({ handle: secret.#handle, isOwned: secret.#isOwned });
  }
}

/** What stands behind it: for the SDK. */
export const handleOf = (secret) => open(secret).handle;
/** Whether the plugin was given it and may give it back. */
export const isOwned = (secret) => open(secret).isOwned;
