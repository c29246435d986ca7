/** The REST API, built from its dependencies; src/api/server.ts listens. */
import { createHash, timingSafeEqual } from 'node:crypto';
import swagger from '@fastify/swagger';
import Fastify from 'fastify';
import type { FastifyBaseLogger, FastifyInstance, FastifyRequest } from 'fastify';
import { jsonSchemaTransform, serializerCompiler } from 'fastify-type-provider-zod';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import type { z } from 'zod';
import type { Campaigns } from '../client/campaigns.ts';
import { StillhouseError } from '../contracts/errors.ts';
import { parseSpec, validate } from '../contracts/parse-spec.ts';
import type { Estimator } from '../estimate/estimator.ts';
import type { ArtifactStore } from '../store/store.ts';
import type { HasSecret } from './check-spec.ts';
import { answerOf } from './errors.ts';
import { addCampaignRoutes } from './routes.ts';

export interface ApiDependencies {
  readonly campaigns: Campaigns;
  readonly store: ArtifactStore;
  /** The bearer key that every route but the open ones wants. */
  readonly apiKey: string;
  readonly hasSecret: HasSecret;
  readonly estimate: Estimator;
  readonly logger?: FastifyBaseLogger;
}

export type TypedApp = ReturnType<typeof withTypes>;
const withTypes = (app: FastifyInstance) => app.withTypeProvider<ZodTypeProvider>();

/** Routes that answer without a key. */
const OPEN = new Set(['/v1/health', '/v1/openapi.json']);
const BODY_LIMIT_BYTES = 4 * 1024 * 1024;
const REQUEST_TIMEOUT_MS = 60_000;

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

function requireKey(apiKey: string): (request: FastifyRequest) => Promise<void> {
  const expected = digest(apiKey);
  return async (request) => {
    if (OPEN.has(request.routeOptions.url ?? '')) return;
    const given = /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1];
    // Digests have one length, so that the comparison takes the same time for every key.
    if (given === undefined || !timingSafeEqual(digest(given), expected)) {
      throw new StillhouseError('UNAUTHORIZED', `expected the header "Authorization: Bearer KEY" with the key of this service, got ${given === undefined ? 'none' : 'another key'}`);
    }
  };
}

const PARTS: Readonly<Record<string, string>> = { body: 'request body', params: 'address', querystring: 'query' };

export async function buildApp(dependencies: ApiDependencies): Promise<FastifyInstance> {
  const app = Fastify({
    bodyLimit: BODY_LIMIT_BYTES,
    requestTimeout: REQUEST_TIMEOUT_MS,
    forceCloseConnections: true,
    ...(dependencies.logger === undefined ? {} : { loggerInstance: dependencies.logger }),
  });
  app.setValidatorCompiler(({ schema, httpPart }) => (data: unknown) => {
    try {
      return { value: validate(schema as z.ZodType, data, PARTS[httpPart ?? ''] ?? 'request') };
    } catch (error) {
      return { error: error as Error };
    }
  });
  app.setSerializerCompiler(serializerCompiler);
  app.addContentTypeParser(['application/yaml', 'application/x-yaml', 'text/yaml'], { parseAs: 'string' }, (_request, text, done) => {
    try {
      done(null, parseSpec(String(text), 'request body'));
    } catch (error) {
      done(error as Error);
    }
  });

  app.setErrorHandler<Error>((error, request, reply) => {
    const answer = answerOf(error, request.id);
    if (answer.hidden) request.log.error({ err: error }, 'request failed');
    if (answer.retryAfterSeconds !== undefined) void reply.header('retry-after', answer.retryAfterSeconds);
    // Past the schemas of the route: the shape of an error is the same everywhere.
    void reply.status(answer.status).type('application/json').serializer(JSON.stringify).send(answer.body);
  });
  app.setNotFoundHandler((request) => {
    throw new StillhouseError('NOT_FOUND', `expected a route of /v1/openapi.json, got ${request.method} ${request.url}`);
  });
  app.addHook('onRequest', requireKey(dependencies.apiKey));

  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'Stillhouse', version: '1', description: 'Distillation campaigns: start, watch, steer, and fetch what they made.' },
      components: { securitySchemes: { key: { type: 'http', scheme: 'bearer' } } },
      security: [{ key: [] }],
    },
    transform: jsonSchemaTransform,
  });
  await app.register(async (scope) => {
    addCampaignRoutes(withTypes(scope), dependencies);
    scope.get('/v1/openapi.json', { schema: { hide: true } }, () => app.swagger());
  });
  await app.ready();
  return app;
}
