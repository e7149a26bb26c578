package main

import (
	"crypto/rsa"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"quorate/opcua/certstore"
	"quorate/opcua/login"
	"quorate/opcua/server"
	"quorate/pki"
)

// application is what a member is as an OPC UA application, and whom it lets in.
type application struct {
	certificate      func() (chain []byte, key *rsa.PrivateKey)
	trusted          *certstore.Store // nil trusts all
	users            *login.Users
	userCertificates *certstore.Store
}

// Below the data directory: the folders of applications, those of users, and the list of users.
func opcuaDir(dataDir string) string { return filepath.Join(dataDir, "opcua") }
func usersDir(dataDir string) string { return filepath.Join(opcuaDir(dataDir), "users") }
func userFile(dataDir string) string { return filepath.Join(usersDir(dataDir), "list") }

func (p *parts) application() (*application, error) {
	s, a := p.settings, &application{}
	if s.OPCUA.Cert != "" {
		loaded, err := pki.LoadApplication(s.OPCUA.Cert, s.OPCUA.Key, s.OPCUA.ApplicationURI)
		if err != nil {
			return nil, fmt.Errorf("opcua.cert: %w", err)
		}
		loaded.OnReload(func(err error) {
			if err != nil {
				p.logger.Error("the changed OPC UA application certificate is refused, the one before stays in use", "error", err)
				return
			}
			p.logger.Info("the OPC UA application certificate was read again")
		})
		a.certificate = loaded.Certificate
	} else {
		chain, key, err := pki.EnsureApplicationCertificate(opcuaDir(s.DataDir), s.OPCUA.ApplicationURI, s.applicationHosts(), time.Now())
		if err != nil {
			return nil, err
		}
		a.certificate = func() ([]byte, *rsa.PrivateKey) { return chain, key }
	}
	var err error
	if !s.OPCUA.TrustAll {
		options := certstore.Options{RequireRevocationLists: s.OPCUA.RequireRevocationLists, Logger: p.logger}
		if s.OPCUA.CA != "" {
			options.Authorities = []string{s.OPCUA.CA}
		}
		if a.trusted, err = certstore.Open(opcuaDir(s.DataDir), options); err != nil {
			return nil, fmt.Errorf("opcua: %w", err)
		}
	}
	if a.userCertificates, err = certstore.Open(usersDir(s.DataDir), certstore.Options{
		Use: certstore.User, RequireRevocationLists: s.OPCUA.RequireRevocationLists, Logger: p.logger,
	}); err != nil {
		return nil, err
	}
	a.users, err = login.Open(userFile(s.DataDir), login.Options{Roles: server.RoleNames(), Logger: p.logger})
	return a, err
}

// applicationHosts are the names under which clients reach the OPC UA endpoint, for its certificate.
func (s *settings) applicationHosts() []string {
	endpoint, err := url.Parse(s.OPCUA.EndpointURL)
	if err != nil {
		return nil // Settings are checked before.
	}
	return []string{endpoint.Hostname()}
}
