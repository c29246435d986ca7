/** What the API answers, as schemas: they make the OpenAPI document. Bodies of requests are strict, answers may grow. */
import { z } from 'zod';
import { ARTIFACT_KINDS } from '../contracts/artifacts.ts';
import { campaignNameSchema, campaignSpecSchema } from '../contracts/campaign-spec.ts';

const artifactSchema = z.looseObject({ kind: z.enum(ARTIFACT_KINDS), sha256: z.string(), sizeBytes: z.number() });
const intervalSchema = z.looseObject({ mean: z.number(), low: z.number(), high: z.number() });
const costSchema = z.looseObject({ usd: z.number(), tokens: z.number() });
const budgetShape = {
  usd: z.number().min(0).optional().describe('Dollars'),
  tokens: z.int().min(1).optional(),
  hours: z.number().gt(0).optional().describe('Hours since the start'),
};

const keptSchema = z.looseObject({ epoch: z.number().describe('1-based'), step: z.number().optional(), steps: z.number().optional(), checkpoint: artifactSchema });

const contestantSchema = z.looseObject({
  name: z.string(),
  status: z.enum(['competing', 'stopped', 'failed', 'winner']),
  epochs: z.number().describe('Of its whole training'),
  trained: z.number().describe('Epochs that are done'),
  kept: keptSchema.optional(),
  measured: z.array(z.looseObject({ epoch: z.number(), score: z.number() })).describe('Scores on the development rows'),
  best: z.looseObject({ epoch: z.number(), score: intervalSchema, checkpoint: artifactSchema, evaluation: artifactSchema }).optional(),
  trainedTokens: z.number(),
  trainedSeconds: z.number(),
  answeredTokens: z.number(),
  answeredSeconds: z.number(),
  sizeBytes: z.number().optional(),
  usd: z.number().describe('What judging its answers has cost'),
  ended: z.looseObject({ epoch: z.number(), reason: z.string() }).optional(),
});

export const stateSchema = z
  .looseObject({
    campaign: z.string(),
    status: z.enum(['running', 'paused', 'completed', 'cancelled']),
    stage: z.string(),
    round: z.number().describe('1-based'),
    maxRounds: z.number(),
    progress: z.number().describe('0 to 1 within the stage'),
    stageParts: z.number().optional().describe('Parts of the stage that progress counts: epochs, batches'),
    pauseReason: z.string().optional().describe('The whole sentence, with the file, line or row that it speaks of'),
    pauseCode: z.string().optional().describe('Paused by a failure: its code'),
    pausedBy: z.string().optional().describe('The person, as the command named them; else budget, provider or failure'),
    pausedAtMs: z.number().optional(),
    remedies: z.array(z.looseObject({ command: z.string(), effect: z.string() })).optional().describe('The commands that make it go on'),
    pauseKind: z.enum(['user', 'budget', 'provider', 'failure']).optional().describe('A budget goes on when it is raised, a provider is asked again by itself, the others wait for a command'),
    needs: z.looseObject(budgetShape).optional().describe('Paused by the budget: the least limits that let it go on'),
    resumesAtMs: z.number().optional().describe('Paused by a provider: when it is asked again'),
    kept: keptSchema.optional().describe('What an unfinished epoch has left: training goes on from it'),
    trainedAnew: z.string().optional().describe('Why the training of this round was begun anew'),
    budget: z.looseObject(budgetShape),
    inFlight: costSchema.optional().describe('The most that purchases which have begun may still cost'),
    uncertain: costSchema.optional().describe('The most that was possibly billed twice; it counts against the budget'),
    forkedFrom: z.looseObject({ campaign: z.string(), round: z.number() }).optional(),
    changedSpec: artifactSchema.optional().describe('The spec after settings or the teacher were changed, or a tournament was won'),
    tournament: z.looseObject({ spec: artifactSchema, contestants: z.array(contestantSchema) }).optional().describe('How the contestants of its tournament stand'),
    spending: z.looseObject({ usd: z.number(), tokens: z.number(), callsBought: z.number(), callsReused: z.number(), callsRepeated: z.number() }),
    startedAtMs: z.number().describe('Milliseconds since 1970'),
    bestRound: z.number().optional(),
    stopReason: z.string().optional(),
    test: z.looseObject({ rows: z.number(), teacherScore: z.number(), untunedScore: z.number(), studentScore: z.number(), retention: intervalSchema }).optional(),
    report: artifactSchema.optional(),
    manifest: artifactSchema.optional(),
    adapter: artifactSchema.optional(),
  })
  .describe('The state of a campaign as its workflow keeps it');

export const changedStateSchema = stateSchema.extend({ notes: z.array(z.string()).describe('When the settings count') });

export const roundSchema = z.looseObject({
  round: z.number(),
  requests: z.number(),
  accepted: z.number(),
  rejected: z.number(),
  tooLongRows: z.number().optional().describe('Rows of the dataset that are longer than training.maxTokens and were not learned'),
  lossFirstNats: z.number(),
  lossLastNats: z.number(),
  teacherScore: z.number(),
  studentScore: z.number(),
  retention: intervalSchema,
  stageMs: z.record(z.string(), z.number()),
});

const runStatusSchema = z.enum(['running', 'completed', 'cancelled', 'failed']);

export const campaignSchema = z.looseObject({
  campaign: z.string(),
  status: runStatusSchema,
  specSha256: z.string(),
  state: stateSchema.optional().describe('Absent while no worker can be asked'),
  failure: z.string().optional(),
  startedAtMs: z.number(),
  closedAtMs: z.number().optional(),
  rounds: z.array(roundSchema),
  warnings: z.array(z.string()).optional().describe('When it is started: what its owner should know, as a model that will be gone soon'),
});

export const listSchema = z.object({
  campaigns: z.array(
    z.looseObject({
      campaign: z.string(),
      status: runStatusSchema,
      stage: z.string().optional(),
      round: z.number().optional(),
      retention: z.number().optional(),
      spentUsd: z.number().optional(),
      startedAtMs: z.number(),
      closedAtMs: z.number().optional(),
    }),
  ),
});

export const errorSchema = z.object({ error: z.object({ code: z.string(), message: z.string(), details: z.record(z.string(), z.unknown()) }) });

export const nameParams = z.strictObject({ name: campaignNameSchema });

/** Artifacts that a campaign's state leads to; those of a round come from its best one. */
export const SERVED_KINDS = ['spec', 'report', 'manifest', 'adapter', 'history', 'dataset', 'rejected', 'loss-curve', 'checkpoint'] as const;
export const artifactParams = z.strictObject({ name: campaignNameSchema, kind: z.enum(SERVED_KINDS) });
export const artifactQuery = z.strictObject({ path: z.string().min(1).optional().describe('A member of a folder artifact') });

export const reasonBody = z.strictObject({ reason: z.string().min(1).max(500).optional() }).nullish();
export const pauseBody = z.strictObject({ reason: z.string().min(1).max(500).optional(), by: z.string().min(1).max(100).optional().describe('Who asks for it, for the next person') }).nullish();
export const settingsBody = z.record(z.string(), z.unknown()).describe('Keys of a spec, nested as there: { "training": { "maxTokens": 1024 } }');
export const budgetBody = z.strictObject(budgetShape).refine((budget) => Object.values(budget).some((value) => value !== undefined), 'expected at least one of usd, tokens, hours, got none');
export const forkBody = z.strictObject({
  name: campaignNameSchema.describe('Of the new campaign'),
  fromRound: z.int().min(1).describe('A finished round, 1-based'),
  spec: campaignSpecSchema.optional().describe('Its name is replaced by the one above'),
});

export const checkSchema = z
  .looseObject({
    answers: z
      .array(z.looseObject({ who: z.string(), model: z.string(), promptTokens: z.number(), completionTokens: z.number(), reasoningTokens: z.number().optional(), usd: z.number(), latencyMs: z.number(), answer: z.string(), problem: z.string().optional() }))
      .describe('The first question of each kind, and what came of it'),
    learned: z.array(z.string()).describe('What the endpoints turned out not to take'),
    usd: z.number().describe('What the check has bought; the campaign does not buy it again'),
    poolRows: z.number(), developmentRows: z.number(), testRows: z.number(),
    leftOut: z.array(z.looseObject({ reason: z.string(), rows: z.number(), example: z.string() })),
    problem: z.string().optional().describe('Why the campaign would pause at its first questions'),
    warnings: z.array(z.string()),
  })
  .describe('A problem is in no answer where none is left');

const rangeSchema = z.looseObject({ low: z.number(), expected: z.number(), high: z.number() });
export const estimateSchema = z
  .looseObject({
    rounds: rangeSchema,
    parts: z.array(z.looseObject({ what: z.string(), model: z.string(), calls: rangeSchema, tokens: rangeSchema, usd: rangeSchema })),
    calls: rangeSchema,
    answeredAlready: z.number().describe('Questions that the ledger answers: they are in no figure'),
    tokens: rangeSchema,
    usd: rangeSchema,
    callHours: rangeSchema.describe('Of the calls alone'),
    trainingHours: rangeSchema.optional().describe('Of training on the processor of the service; absent where the size of the student is not known'),
    leftOut: z.array(z.looseObject({ reason: z.string(), rows: z.number(), example: z.string() })).optional().describe('Rows that the campaign would leave out before it asks about any: duplicates, too long for the student, turned away by the filter'),
    basis: z.array(z.string()).describe('What the figures rest on'),
    warnings: z.array(z.string()),
  })
  .describe('low and high are what may be, expected what is likely; high is what the campaign would set aside');
