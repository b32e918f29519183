"""Mutation testing of bpf/: does a suite fail for every fault that can be made in a program?"""
