/** The routes of campaigns: start, watch, steer, and fetch what they made. */
import { createReadStream } from 'node:fs';
import { z } from 'zod';
import type { ArtifactRef, FolderManifest } from '../contracts/artifacts.ts';
import type { CampaignHistory } from '../contracts/activities.ts';
import { specToPlan } from '../contracts/campaign.ts';
import { campaignSpecSchema, teacherPatchSchema } from '../contracts/campaign-spec.ts';
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { RejectedSample } from '../contracts/records.ts';
import type { Budget, CampaignState, RoundSummary } from '../contracts/state.ts';
import { leftOutOf } from '../estimate/estimate.ts';
import type { CampaignDescription } from '../client/campaigns.ts';
import { limitWarnings } from '../estimate/estimator.ts';
import { getJson, getRows, putJson } from '../store/jsonl.ts';
import type { ApiDependencies, TypedApp } from './app.ts';
import { changeTeacher, currentSpec, forkOf } from './change-spec.ts';
import { changeSettings, outdatedBy } from './set-spec.ts';
import { checkSpec } from './check-spec.ts';
import { artifactParams, artifactQuery, budgetBody, campaignSchema, changedStateSchema, checkSchema, errorSchema, estimateSchema, forkBody, listSchema, nameParams, pauseBody, reasonBody, settingsBody, stateSchema } from './schemas.ts';
import type { SERVED_KINDS } from './schemas.ts';

/**
 * The schemas of answers describe and check at run time; the types of src/contracts, which know each
 * value more closely, are what handlers return.
 */
const answers = (schema: z.ZodType): z.ZodType<unknown> => schema;
const errors = { '4xx': answers(errorSchema), '5xx': answers(errorSchema) };
const bytes = { 200: z.unknown(), ...errors };
const BYTES = 'application/octet-stream';

/** Drops keys whose value is undefined: to us an absent limit and none are the same. */
function definedBudget(budget: z.output<typeof budgetBody>): Budget {
  return Object.fromEntries(Object.entries(budget).filter(([, value]) => value !== undefined));
}

export function addCampaignRoutes(app: TypedApp, { campaigns, store, hasSecret, estimate }: ApiDependencies): void {
  /** Every finished round: from the history artifact, or the latest ones from the workflow. */
  const roundsOf = async (description: CampaignDescription): Promise<readonly RoundSummary[]> => {
    if (description.state === undefined) return [];
    const { history } = description.state;
    if (history !== undefined) return (await getJson<CampaignHistory>(store, history)).rounds;
    return campaigns.rounds(description.campaign);
  };
  const resource = async (name: string) => {
    const description = await campaigns.describe(name);
    return { ...description, rounds: [...(await roundsOf(description))] };
  };
  const stateOf = async (name: string): Promise<{ readonly description: CampaignDescription; readonly state: CampaignState }> => {
    const description = await campaigns.describe(name);
    if (description.state === undefined) throw new StillhouseError('UNAVAILABLE', `campaign ${name}: no worker answered for its state`);
    return { description, state: description.state };
  };

  app.get('/v1/health', {
    schema: { summary: 'Whether the service and its Temporal server answer', security: [], response: { 200: z.object({ status: z.literal('ok') }), '5xx': errorSchema } },
  }, async () => {
    await campaigns.check();
    return { status: 'ok' as const };
  });

  app.post('/v1/campaigns', {
    schema: {
      summary: 'Start a campaign',
      description: 'The name is the identity: the same spec again answers 200 with the existing campaign, another spec under the name 409. YAML is accepted as application/yaml.',
      body: campaignSpecSchema,
      response: { 200: answers(campaignSchema), 201: answers(campaignSchema), ...errors },
    },
  }, async (request, reply) => {
    const spec = request.body;
    const warnings = await checkSpec(spec, hasSecret);
    const ref = await putJson(store, 'spec', spec);
    const { created } = await campaigns.start({ campaign: spec.name, spec: ref, plan: specToPlan(spec), budget: definedBudget(spec.budget) });
    return reply.status(created ? 201 : 200).header('location', `/v1/campaigns/${spec.name}`).send({ ...(await resource(spec.name)), ...(warnings.length === 0 ? {} : { warnings }) });
  });

  app.post('/v1/campaigns/estimate', {
    schema: {
      summary: 'What a campaign would ask and cost, without starting it',
      description: 'Its requests are planned and looked up in the ledger; nothing is called or bought. YAML is accepted as application/yaml.',
      body: campaignSpecSchema,
      response: { 200: answers(estimateSchema), ...errors },
    },
  }, async (request) => {
    const warnings = await checkSpec(request.body, hasSecret);
    const estimated = await estimate(request.body);
    return { ...estimated, warnings: [...warnings, ...limitWarnings(request.body, estimated)] };
  });

  app.post('/v1/campaigns/check', {
    schema: {
      summary: 'Whether a spec would work: one question of each kind is asked, nothing is started',
      description: 'Its rows are imported and split, then teacher, judge and hosted student answer one question each, through the ledger: the campaign does not buy them again. Takes as long as these answers. YAML is accepted as application/yaml.',
      body: campaignSpecSchema,
      response: { 200: answers(checkSchema), ...errors },
    },
  }, async (request) => {
    const spec = request.body;
    const warnings = await checkSpec(spec, hasSecret);
    const { excluded, ...checked } = await campaigns.checkSpec({ campaign: spec.name, spec: await putJson(store, 'spec', spec), importsCompletions: specToPlan(spec).importsCompletions === true });
    return { ...checked, leftOut: excluded === undefined ? [] : leftOutOf(await getRows<RejectedSample>(store, excluded)), warnings };
  });

  app.get('/v1/campaigns', { schema: { summary: 'All campaigns, running and closed', response: { 200: answers(listSchema), ...errors } } }, async () => ({ campaigns: [...(await campaigns.list())] }));

  app.get('/v1/campaigns/:name', {
    schema: { summary: 'One campaign: its state and its finished rounds', params: nameParams, response: { 200: answers(campaignSchema), ...errors } },
  }, (request) => resource(request.params.name));

  const steer = { params: nameParams, response: { 200: answers(stateSchema), ...errors } };
  app.post('/v1/campaigns/:name/pause', { schema: { summary: 'Pause after the work in progress', body: pauseBody, ...steer } }, (request) =>
    campaigns.pause(request.params.name, request.body?.reason ?? 'paused by request', request.body?.by),
  );
  app.post('/v1/campaigns/:name/resume', { schema: { summary: 'Go on', body: z.strictObject({}).nullish(), ...steer } }, (request) => campaigns.resume(request.params.name));
  app.post('/v1/campaigns/:name/cancel', { schema: { summary: 'End it after a report; what was bought and trained stays', body: reasonBody, ...steer } }, (request) =>
    campaigns.cancel(request.params.name, request.body?.reason ?? 'cancelled by request'),
  );
  app.post('/v1/campaigns/:name/budget', { schema: { summary: 'Raise limits; each replaces the old one and is not lower', body: budgetBody, ...steer } }, (request) =>
    campaigns.raiseBudget(request.params.name, definedBudget(request.body)),
  );

  app.patch('/v1/campaigns/:name/teacher', {
    schema: {
      summary: 'Change the teacher: what has no answer yet goes to the new one',
      description: 'Keys that are absent stay as they are; null removes one that may be absent. Answers of earlier teachers stay in use.',
      body: teacherPatchSchema, ...steer,
    },
  }, async (request) => {
    const { description } = await stateOf(request.params.name);
    const before = currentSpec(description);
    const old = await getJson<CampaignSpec>(store, before);
    const spec = changeTeacher(old, request.body);
    await checkSpec(spec, hasSecret);
    const outdates = outdatedBy(old, spec);
    return await campaigns.setTeacher(request.params.name, { spec: await putJson(store, 'spec', spec), replaces: before.sha256, plan: specToPlan(spec), ...(outdates === undefined ? {} : { outdates }) });
  });

  app.patch('/v1/campaigns/:name/spec', {
    schema: {
      summary: 'Change settings that nothing which was bought depends on',
      description: 'A JSON merge patch of the spec: filter, training, iterate, evaluation.bootstrapResamples, limits and batch sizes. Null takes a key away; the spec must stay valid as a whole. A campaign whose pause the settings may mend goes on.',
      body: settingsBody, params: nameParams, response: { 200: answers(changedStateSchema), ...errors },
    },
  }, async (request) => {
    const { name } = request.params;
    const { description } = await stateOf(name);
    const before = currentSpec(description);
    const { spec, outdates, notes } = changeSettings(await getJson<CampaignSpec>(store, before), request.body);
    const state = await campaigns.setSpec(name, { spec: await putJson(store, 'spec', spec), replaces: before.sha256, plan: specToPlan(spec), ...(outdates === undefined ? {} : { outdates }) });
    return { ...state, notes };
  });

  app.post('/v1/campaigns/:name/fork', {
    schema: {
      summary: 'Start another campaign from a finished round of this one',
      description: 'It begins with the requests and answers of rounds 1 to fromRound, builds their dataset anew by its own settings, trains, evaluates, and goes on. Without a spec it has this one\'s.',
      params: nameParams, body: forkBody, response: { 200: answers(campaignSchema), 201: answers(campaignSchema), ...errors },
    },
  }, async (request, reply) => {
    const { name, fromRound, spec: given } = request.body;
    const { description } = await stateOf(request.params.name);
    const { spec, from } = await forkOf(store, description, name, fromRound, given);
    const warnings = await checkSpec(spec, hasSecret);
    const ref = await putJson(store, 'spec', spec);
    const { created } = await campaigns.start({ campaign: name, spec: ref, plan: specToPlan(spec), budget: definedBudget(spec.budget), fork: from });
    return reply.status(created ? 201 : 200).header('location', `/v1/campaigns/${name}`).send({ ...(await resource(name)), ...(warnings.length === 0 ? {} : { warnings }) });
  });

  app.get('/v1/campaigns/:name/report', { schema: { summary: 'The report, one HTML page', params: nameParams, response: bytes } }, async (request, reply) => {
    const { state } = await stateOf(request.params.name);
    if (state.report === undefined) throw new StillhouseError('NOT_FOUND', `campaign ${request.params.name}: expected a finished report, got a campaign whose stage is ${state.stage}`);
    const page = await store.get(state.report);
    // The page carries its own style and plots and needs nothing from elsewhere.
    return reply.type('text/html; charset=utf-8').header('content-security-policy', "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'unsafe-inline'").send(page);
  });

  app.get('/v1/campaigns/:name/artifacts/:kind', {
    schema: {
      summary: 'An artifact; those of a round come from the best one',
      description: 'Of a folder (adapter, checkpoint) the list of its members; with ?path= one of them.',
      params: artifactParams, querystring: artifactQuery, response: bytes,
    },
  }, async (request, reply) => {
    const { name, kind } = request.params;
    const { description, state } = await stateOf(name);
    const ref = artifactOf(kind, description, state, await roundsOf(description));
    if (ref === undefined) throw new StillhouseError('NOT_FOUND', `campaign ${name}: expected a ${kind} artifact, got none so far (stage ${state.stage})`);
    void reply.header('x-artifact-sha256', ref.sha256);
    const content = await store.get(ref);
    const { path } = request.query;
    if (path === undefined) return reply.type(contentType(kind)).send(content);
    const members = kind === 'adapter' ? (JSON.parse(content.toString('utf8')) as FolderManifest).files : [];
    const member = members.find((file) => file.path === path);
    if (member === undefined) throw new StillhouseError('NOT_FOUND', `campaign ${name}, ${kind}: expected a member, one of ${members.map((file) => file.path).join(', ') || 'none'}, got ${JSON.stringify(path)}`);
    // A member may be a whole model: it is streamed, and its length lets the receiver know that all of it came.
    const file = await store.localPath({ kind: 'file', sha256: member.sha256, sizeBytes: member.sizeBytes });
    return reply.type(BYTES).header('content-length', member.sizeBytes).send(createReadStream(file));
  });
}

function artifactOf(kind: (typeof SERVED_KINDS)[number], description: CampaignDescription, state: CampaignState, rounds: readonly RoundSummary[]): ArtifactRef | undefined {
  const best = rounds.find((round) => round.round === state.bestRound) ?? rounds.at(-1);
  switch (kind) {
    case 'spec':
      return currentSpec(description);
    case 'report':
      return state.report;
    case 'manifest':
      return state.manifest;
    case 'adapter':
      return state.adapter;
    case 'history':
      return state.history;
    case 'dataset':
      return best?.dataset;
    case 'rejected':
      return best?.rejectedRows;
    case 'loss-curve':
      return best?.lossCurve;
    case 'checkpoint':
      return best?.checkpoint;
  }
}

function contentType(kind: (typeof SERVED_KINDS)[number]): string {
  if (kind === 'report') return 'text/html; charset=utf-8';
  if (kind === 'checkpoint') return BYTES;
  return kind === 'dataset' || kind === 'rejected' || kind === 'loss-curve' ? 'application/jsonl' : 'application/json';
}
