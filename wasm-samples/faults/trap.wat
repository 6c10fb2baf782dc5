;; Traps at once: a non-zero exit with the trap's message as the termination message.
(module
  (memory (export "memory") 1)
  (func (export "_start") unreachable))
