/** The API role of a deployment: no supervisor, no workers, a Temporal server that runs elsewhere. */
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { pino } from 'pino';
import { buildApp } from '../api/app.ts';
import { listen } from '../api/server.ts';
import { openGateway } from '../client/gateway.ts';
import { hasSecret, homePaths } from '../config.ts';
import { apiKeyOf } from '../embedded/home.ts';
import { createEstimator } from '../estimate/estimator.ts';
import { createFileStore } from '../store/file-store.ts';
import type { CommandContext } from './commands.ts';

export async function serveApi({ config, signal }: CommandContext): Promise<number> {
  await mkdir(config.home, { recursive: true });
  const logger = pino({ level: config.logLevel }, pino.destination(2));
  const campaigns = openGateway(config.temporal);
  const app = await buildApp({ campaigns, store: createFileStore(homePaths(config.home).artifacts), apiKey: await apiKeyOf(config), hasSecret, estimate: createEstimator(config), logger });
  const server = await listen(app, config.api);
  if (!signal.aborted) await once(signal, 'abort');
  await server.close();
  await campaigns.close();
  return 0;
}
