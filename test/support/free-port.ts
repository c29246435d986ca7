/**
 * A port for a server that a test starts later. It lies below the range that the system hands out by
 * itself, since Temporal's development server takes several of those for its inner services: a port
 * of that range that is free now may be one of them a second later.
 */
import { once } from 'node:events';
import { createServer } from 'node:net';

const FIRST = 20_000;
/** Linux hands out 32768 and above (net.ipv4.ip_local_port_range). */
const END = 32_768;
const ATTEMPTS = 50;
const given = new Set<number>();

/** Free on 127.0.0.1 now, and not given by this process before. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const port = FIRST + Math.floor(Math.random() * (END - FIRST));
    if (given.has(port) || !(await isFree(port))) continue;
    given.add(port);
    return port;
  }
  throw new Error(`expected a free port from ${FIRST} to ${END - 1} on 127.0.0.1, got none in ${ATTEMPTS} attempts`);
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  try {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
  } catch {
    return false;
  }
  server.close();
  await once(server, 'close');
  return true;
}
