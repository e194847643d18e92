"""A plugin as the contract's exports, a module for each kind.

Only within a component: the entry that `jit-broker plugin build` writes imports one of them.
"""
