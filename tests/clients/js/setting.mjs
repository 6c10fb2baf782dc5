// What every test of this folder begins with.

import * as k8s from '@kubernetes/client-node';

// Longer than anything here takes on a machine that works, however loaded.
const PATIENCE = 60_000;

export const config = new k8s.KubeConfig();
config.loadFromDefault();
export const core = config.makeApiClient(k8s.CoreV1Api);
export const apps = config.makeApiClient(k8s.AppsV1Api);

export const pause = () => new Promise((resolve) => setTimeout(resolve, 50));

/** Asks until the probe gives something, and returns it. */
export async function eventually(what, probe) {
    const deadline = Date.now() + PATIENCE;
    for (;;) {
        const found = await probe();
        if (found) {
            return found;
        }
        if (Date.now() > deadline) {
            throw new Error(`${what}: not within ${PATIENCE} ms`);
        }
        await pause();
    }
}

/** The error with which the server refuses a call, or nothing if it is another one. */
export function refusal(code) {
    return (error) => error instanceof k8s.ApiException && error.code === code;
}

/** What a call gives, or `undefined` where the server refuses it with this code. */
export async function unless(code, call) {
    try {
        return await call;
    } catch (error) {
        if (refusal(code)(error)) {
            return undefined;
        }
        throw error;
    }
}

/**
 * Cuts all connections to the server ('cut'), or kills it and waits until it is back ('restart').
 * A test that needs it is skipped where nothing can be disturbed.
 */
export async function disturb(how) {
    const response = await fetch(`${process.env.DISTURB_URL}/${how}`, { method: 'POST' });
    if (!response.ok) {
        throw new Error(`${how}: ${response.status}`);
    }
}

export const undisturbed = process.env.DISTURB_URL ? false : 'SKIPPED: no DISTURB_URL';

/** A namespace of the test's own, deleted after it. */
export async function namespace(test) {
    const made = await core.createNamespace({ body: { metadata: { generateName: 'js-' } } });
    const name = made.metadata.name;
    test.after(() => core.deleteNamespace({ name }));
    // Pods are refused until their ServiceAccount is there.
    await eventually('the ServiceAccount', () =>
        unless(404, core.readNamespacedServiceAccount({ name: 'default', namespace: name })),
    );
    return name;
}

export const secret = (name) => ({ metadata: { name } });

export function deployment(replicas, note) {
    const labels = { app: 'app' };
    const container = { name: 'c', image: 'hello-http:v1', env: [{ name: 'A', value: 'a' }] };
    return {
        apiVersion: 'apps/v1',
        kind: 'Deployment',
        metadata: { name: 'app', labels, annotations: { note } },
        spec: {
            replicas,
            selector: { matchLabels: labels },
            template: { metadata: { labels }, spec: { containers: [container] } },
        },
    };
}
