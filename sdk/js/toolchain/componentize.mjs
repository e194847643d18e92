// One plugin into one component. Called by `jit-broker plugin build` with a JSON object as its argument:
// { source, wit, world, out }.
import { writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';
import { splicer } from './node_modules/@bytecodealliance/componentize-js/lib/spidermonkey-embedding-splicer.js';

// componentize-js 0.23 refers to the class of an imported resource that has no methods, such as a secret, and defines
// none. Its prototype is all that is used of it.
const { spliceBindings } = splicer;
splicer.spliceBindings = (...values) => {
  const spliced = spliceBindings(...values);
  const used = new Set(spliced.jsBindings.match(/\bimport_\w+\$[A-Z]\w*(?=\.prototype\b)/g));
  const missing = [...used].filter((name) => !spliced.jsBindings.includes(`class ${name} `));
  const classes = missing.map((name) => `class ${name} {}\n`).join('');
  return { ...spliced, jsBindings: classes + spliced.jsBindings };
};

const { source, wit, world, out } = JSON.parse(process.argv[2]);
const { component } = await componentize({
  sourcePath: source,
  witPath: wit,
  worldName: world,
  // A plugin has none of them, and a component that imports one is refused.
  disableFeatures: ['stdio', 'random', 'clocks', 'http', 'fetch-event'],
});
await writeFile(out, component);
