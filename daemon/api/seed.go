// SPDX-License-Identifier: Apache-2.0

package api

// MaxSeed is how long the texts of a seed are together, in bytes.
const MaxSeed = 64 << 10

// Seed is what a guest's cloud-init reads from a disk of the form NoCloud. It may hold
// secrets, such as a password's hash: who may view a VM is told its SeedSize.
type Seed struct {
	UserData      string `json:"userData,omitempty" doc:"What cloud-init is to do: #cloud-config, a script, or MIME parts. The three texts are at most 64 KiB together, and hold no NUL"`
	MetaData      string `json:"metaData,omitempty" doc:"Left out, it names the VM's uuid as instance-id and its name as local-hostname"`
	NetworkConfig string `json:"networkConfig,omitempty" doc:"Addresses, in a form of cloud-init's; left out, the guest asks DHCP"`
}

// SeedSize says what a VM's seed has, and nothing of what is in it.
type SeedSize struct {
	UserDataBytes      int `json:"userDataBytes"`
	MetaDataBytes      int `json:"metaDataBytes" doc:"0: the VM's uuid and name are told"`
	NetworkConfigBytes int `json:"networkConfigBytes" doc:"0: the guest asks DHCP"`
}

// Size measures the seed.
func (s *Seed) Size() *SeedSize {
	return &SeedSize{UserDataBytes: len(s.UserData), MetaDataBytes: len(s.MetaData), NetworkConfigBytes: len(s.NetworkConfig)}
}
