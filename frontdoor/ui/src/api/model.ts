// SPDX-License-Identifier: Apache-2.0
// Short names for what the generated types call components["schemas"][…].
import type { components } from "./schema";

type Schemas = components["schemas"];

export type VM = Schemas["VM"];
export type VMSpec = Schemas["VMSpec"];
export type BootSpec = Schemas["BootSpec"];
export type DiskSpec = Schemas["DiskSpec"];
export type NICSpec = Schemas["NICSpec"];
export type RateLimit = Schemas["RateLimit"];
export type VMChange = Schemas["VMChange"];
export type Seed = Schemas["Seed"];
export type SeedSize = Schemas["SeedSize"];
export type VMStatus = Schemas["VMStatus"];
export type State = VMStatus["state"];
export type Verb = VMStatus["allowed"][number];
export type LastStop = Schemas["LastStop"];
export type Task = Schemas["Task"];
export type Event = Schemas["Event"];
export type StreamEnd = Schemas["StreamEnd"];
export type Host = Schemas["Host"];
export type WhoAmI = Schemas["WhoAmI"];
export type Role = WhoAmI["roles"][number];
export type Problem = Schemas["Problem"];
export type ConsoleToken = Schemas["ConsoleToken"];
export type ConsoleMode = NonNullable<Schemas["ConsoleTokenRequest"]["mode"]>;
