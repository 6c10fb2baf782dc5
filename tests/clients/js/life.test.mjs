// The JavaScript client against a whole cluster that knows the images of wasm-samples.
//
//     KUBECONFIG=$(coracle kubeconfig --path) node life.test.mjs

import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as k8s from '@kubernetes/client-node';

import {
    apps,
    config,
    core,
    deployment,
    disturb,
    eventually,
    namespace,
    pause,
    refusal,
    secret,
    undisturbed,
    unless,
} from './setting.mjs';

const as = (strategy) => k8s.setHeaderOptions('Content-Type', strategy);

test('lists come in pages, through a restart', { skip: undisturbed }, async (t) => {
    const where = { namespace: await namespace(t) };
    const names = [...Array(7).keys()].map((number) => `page-${number}`);
    for (const name of names) {
        await core.createNamespacedSecret({ ...where, body: secret(name) });
    }
    const got = [];
    let token;
    do {
        const page = await core.listNamespacedSecret({ ...where, limit: 3, _continue: token });
        got.push(...page.items.map((item) => item.metadata.name));
        assert.equal(page.metadata.remainingItemCount ?? 0, names.length - got.length);
        token = page.metadata._continue;
        if (token) {
            await disturb('restart');
        }
    } while (token);
    assert.deepEqual(got, names);
});

test('each patch does what it says', async (t) => {
    const where = { name: 'app', namespace: await namespace(t) };
    await apps.createNamespacedDeployment({ ...where, body: deployment(0, '') });
    const patch = (strategy, body) =>
        apps.patchNamespacedDeployment({ ...where, body }, as(strategy));
    await patch(k8s.PatchStrategy.JsonPatch, [
        { op: 'test', path: '/spec/replicas', value: 0 },
        { op: 'add', path: '/metadata/labels/json', value: 'yes' },
    ]);
    await assert.rejects(
        patch(k8s.PatchStrategy.JsonPatch, [{ op: 'test', path: '/spec/replicas', value: 7 }]),
        refusal(422),
    );
    await patch(k8s.PatchStrategy.MergePatch, {
        metadata: { labels: { json: null, merge: 'yes' } },
    });
    const containers = [{ name: 'c', env: [{ name: 'B', value: 'b' }] }];
    const got = await patch(k8s.PatchStrategy.StrategicMergePatch, {
        spec: { template: { spec: { containers } } },
    });
    assert.deepEqual(got.metadata.labels, { app: 'app', merge: 'yes' });
    const [container] = got.spec.template.spec.containers;
    assert.equal(container.image, 'hello-http:v1');
    assert.deepEqual(container.env.map((variable) => variable.name).sort(), ['A', 'B']);
});

test('appliers conflict, by the client of any kind', async (t) => {
    const space = await namespace(t);
    const objects = k8s.KubernetesObjectApi.makeApiClient(config);
    const apply = (manager, force, body) => {
        body.metadata.namespace = space;
        const strategy = k8s.PatchStrategy.ServerSideApply;
        return objects.patch(body, undefined, undefined, manager, force, strategy);
    };
    const made = await apply('one', false, deployment(0, 'mine'));
    assert.equal(made.kind, 'Deployment');
    await assert.rejects(apply('two', false, deployment(1, 'theirs')), (error) => {
        assert.ok(refusal(409)(error), error);
        const body = typeof error.body === 'string' ? JSON.parse(error.body) : error.body;
        const fields = body.details.causes.map((cause) => {
            assert.equal(cause.reason, 'FieldManagerConflict');
            assert.match(cause.message, /conflict with "one"/);
            return cause.field;
        });
        assert.deepEqual(fields, ['.metadata.annotations.note', '.spec.replicas']);
        return true;
    });
    const forced = await apply('two', true, deployment(1, 'theirs'));
    assert.equal(forced.metadata.annotations.note, 'theirs');
    const listed = await objects.list('apps/v1', 'Deployment', space);
    assert.deepEqual(listed.items.map((item) => item.metadata.name), ['app']);
    await objects.delete(forced);
    await eventually('the end of the Deployment', async () => !(await unless(404, objects.read(forced))));
});

test('an informer comes through disconnects', { skip: undisturbed }, async (t) => {
    const where = { namespace: await namespace(t) };
    const list = () => core.listNamespacedSecret(where);
    const path = `/api/v1/namespaces/${where.namespace}/secrets`;
    const informer = k8s.makeInformer(config, path, list);
    const counts = { add: {}, delete: {} };
    for (const [verb, count] of Object.entries(counts)) {
        informer.on(verb, (object) => {
            const { name } = object.metadata;
            count[name] = (count[name] ?? 0) + 1;
        });
    }
    // An informer of this client ends with an error, and its user starts it again.
    let stopped = false;
    const start = async () => {
        while (!stopped) {
            try {
                return await informer.start();
            } catch {
                await pause();
            }
        }
    };
    informer.on('error', () => setTimeout(start, 50));
    await start();
    t.after(async () => {
        stopped = true;
        await informer.stop();
    });
    for (const [round, how] of [null, 'cut', 'restart', 'cut'].entries()) {
        const create = (name) =>
            core.createNamespacedSecret({ ...where, body: secret(`${name}-${round}`) });
        await create('kept');
        await create('lost');
        if (how) {
            await disturb(how);
        }
        await create('late');
        await core.deleteNamespacedSecret({ ...where, name: `lost-${round}` });
        const versions = (items) =>
            JSON.stringify(
                items.map((item) => `${item.metadata.name} ${item.metadata.resourceVersion}`).sort(),
            );
        const truth = versions((await list()).items);
        await eventually(`the informer after ${how}`, () => versions(informer.list()) === truth);
    }
    for (const [name, times] of Object.entries(counts.add)) {
        assert.equal(times, 1, name);
        assert.equal(counts.delete[name] ?? 0, name.startsWith('lost') ? 1 : 0, name);
    }
});

test('a Deployment is scaled', async (t) => {
    const where = { name: 'app', namespace: await namespace(t) };
    await apps.createNamespacedDeployment({ ...where, body: deployment(0, '') });
    // The Deployment's controller may write meanwhile.
    const scale = await eventually('a scale that nobody changes meanwhile', async () => {
        const body = await apps.readNamespacedDeploymentScale(where);
        body.spec.replicas = 1;
        const replaced = apps.replaceNamespacedDeploymentScale({ ...where, body });
        return (await unless(409, replaced)) && body;
    });
    await assert.rejects(
        apps.replaceNamespacedDeploymentScale({ ...where, body: scale }),
        refusal(409),
    );
    const ready = async (replicas) =>
        (await apps.readNamespacedDeployment(where)).status.readyReplicas === replicas;
    await eventually('one replica', () => ready(1));
    const body = { spec: { replicas: 2 } };
    await apps.patchNamespacedDeploymentScale(
        { ...where, body },
        as(k8s.PatchStrategy.MergePatch),
    );
    await eventually('two replicas', () => ready(2));
});

test('an eviction heeds a budget', async (t) => {
    const where = { name: 'guarded', namespace: await namespace(t) };
    const labels = { app: 'guarded' };
    const containers = [{ name: 'c', image: 'hello-http:v1' }];
    await core.createNamespacedPod({
        ...where,
        body: { metadata: { name: where.name, labels }, spec: { containers } },
    });
    await eventually(
        'a Pod that runs',
        async () => (await core.readNamespacedPod(where)).status.phase === 'Running',
    );
    const policy = config.makeApiClient(k8s.PolicyV1Api);
    await policy.createNamespacedPodDisruptionBudget({
        ...where,
        body: {
            metadata: { name: 'guard' },
            spec: { minAvailable: 1, selector: { matchLabels: labels } },
        },
    });
    const evict = () =>
        core.createNamespacedPodEviction({
            ...where,
            body: { metadata: { name: where.name }, deleteOptions: { gracePeriodSeconds: 0 } },
        });
    await assert.rejects(evict(), refusal(429));
    await policy.deleteNamespacedPodDisruptionBudget({ ...where, name: 'guard' });
    await evict();
    await eventually('the end of the Pod', async () => !(await unless(404, core.readNamespacedPod(where))));
});

test('logs and events', async (t) => {
    const where = { name: 'batch', namespace: await namespace(t) };
    const containers = [{ name: 'c', image: 'batch-hello:v1', args: ['Ada'] }];
    const made = await core.createNamespacedPod({
        ...where,
        body: { metadata: { name: where.name }, spec: { containers, restartPolicy: 'Never' } },
    });
    await eventually(
        'the end of the guest',
        async () => (await core.readNamespacedPod(where)).status.phase === 'Succeeded',
    );
    assert.equal(await core.readNamespacedPodLog(where), 'Hello, Ada\n');
    const { uid } = made.metadata;
    const told = {
        metadata: { generateName: 'told-' },
        eventTime: new k8s.V1MicroTime(),
        reportingController: 'coracle.dev/js',
        reportingInstance: 'js',
        action: 'Telling',
        reason: 'Told',
        note: 'a story',
        type: 'Normal',
        regarding: { apiVersion: 'v1', kind: 'Pod', ...where, uid },
    };
    const events = config.makeApiClient(k8s.EventsV1Api);
    await events.createNamespacedEvent({ ...where, body: told });
    const fieldSelector = `involvedObject.uid=${uid}`;
    const heard = await core.listNamespacedEvent({ ...where, fieldSelector });
    const reasons = heard.items.map((event) => event.reason);
    for (const reason of ['Scheduled', 'Started', 'Told']) {
        assert.ok(reasons.includes(reason), reasons.join());
    }
});
