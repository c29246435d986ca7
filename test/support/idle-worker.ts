/** Stands where a worker would, so that its supervision can be tested alone. */
const keepAlive = setInterval(() => undefined, 1 << 30);
process.once('SIGTERM', () => clearInterval(keepAlive));
process.once('disconnect', () => process.exit(0));
process.once('SIGTERM', () => process.disconnect());
