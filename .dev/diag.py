import sys; sys.argv=['x','/work/scratch/lat','[]','']
exec(open('/work/main/.dev/hold4.py').read().split("V=eval")[0])
for c in (104,109,111,114):
    z=torch.load(f'/work/scratch/lat/{c}.pt',weights_only=False); t=z['truth']; x=z['lat'].float(); bg=background(t.mask)[0,:,0]
    r=z['ref'].reshape(1,-1,32,32).float(); body,own=z['body'][0,1:],z['body'][0,0]
    y=hold(x,r,body,own,.08,.2,2,1.1,.8,2)
    one=hold(torch.zeros_like(x)+0,r*0+1,body,own,1e6,2e6,2,1.1,.8,2)
    vid=an.decoded(y)
    both=bg[1:]*bg[:-1]; ch=(vid[1:]-vid[:-1]).abs().mean(1)*255
    n=torch.minimum(nearness(body,size=size,cells=cells,parts=PARTS[:1])/1.1,nearness(body,size=size,cells=cells,parts=PARTS[1:])/.8)
    nn=F.interpolate(n.clamp(max=9)[:,None],size=(256,256),mode='nearest')[:,0]; nn=torch.minimum(nn[1:],nn[:-1])
    dd=((y-x).square().mean(1)); 
    d=(x-y).abs().sum(1)>0; 
    moved=(x-y).square().mean(1)/( (x-r).square().mean(1)+1e-9)
    print(c,'area',round(both.mean().item(),3))
    for a,b in ((0,1),(1,1.5),(1.5,2),(2,3),(3,10)):
        w=both*((nn>=a)&(nn<b)); print('  near %s-%s share of area %.2f  motion %.2f'%(a,b,(w.sum()/both.sum()).item(),((ch*w).sum()/w.sum().clamp(min=1)).item()))
