// One policy into one component. Called by `jit-broker plugin build` with a JSON object as its argument:
// { source, wit, world, out }.
import { writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';

const { source, wit, world, out } = JSON.parse(process.argv[2]);
const { component } = await componentize({
  sourcePath: source,
  witPath: wit,
  worldName: world,
  // A policy has none of them, and a component that imports one is refused.
  disableFeatures: ['stdio', 'random', 'clocks', 'http', 'fetch-event'],
});
await writeFile(out, component);
